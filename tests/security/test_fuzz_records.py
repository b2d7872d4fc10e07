"""Records of runs, exports and studies with everything in them changed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from fuse.search.choice import selected_trial
from fuse.search.database import read_studies
from fuse.search.snapshot import make_snapshot
from mmsa_cache.api.study import StudyTrial
from mmsa_cache.runs.folder import RunFolder
from tests.support.fuzzing import EXAMPLES, ODD, Random, altered, json_bytes, mutated, series
from tests.support.made_up_run import write_run
from tests.support.tally import Tally


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, and what of its folder invented runs have more."""
    return write_run(tmp_path_factory.mktemp("invented") / "run")


def everything_of(path: Path) -> None:
    """Reads all that a report or a comparison reads."""
    folder = RunFolder(path)
    record = folder.record
    folder.figures.table()
    assert len(folder.predictions.probabilities) == len(folder.predictions.labels)
    assert folder.predictions.probabilities.shape[1] == len(record.classes)
    assert all(epoch.epoch > 0 for epoch in folder.history)
    assert all(isinstance(of.name, str) for of in folder.snapshots)
    assert folder.command is not None
    dict(record.labels)
    dict(folder.environment)


@EXAMPLES
@pytest.mark.parametrize("name", ["config.json", "metrics.json", "studies.json", "env.json"])
def test_json_of_runs(run: Path, tmp_path: Path, name: str, examples: int, tally: Tally) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    whole = json.loads((run / name).read_text())

    def work(content: bytes) -> None:
        (folder / name).write_bytes(content)
        everything_of(folder)

    held = series(examples, lambda chosen: json_bytes(chosen, whole), work)
    tally(f"fuzzed {name} of runs", examples, held)


def _predictions(chosen: Random, text: str) -> bytes:
    """Rows of ``predictions.csv`` with other cells."""
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(chosen.choice((1, 1, 2, 4))):
        row = chosen.choice(rows)
        if row and chosen.random() < 0.8:
            row[chosen.randrange(len(row))] = (
                str(chosen.choice(ODD)).encode("utf-8", "replace").decode()
            )
        else:
            rows.append(list(row))
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    data = out.getvalue().encode()
    return mutated(chosen, [data]) if chosen.random() < 0.5 else data


@EXAMPLES
def test_predictions_and_epochs_of_runs(
    run: Path, tmp_path: Path, examples: int, tally: Tally
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    table, lines = (run / "predictions.csv").read_text(), (run / "metrics.jsonl").read_text()
    epochs = [json.loads(line) for line in lines.splitlines()]

    def make(chosen: Random) -> tuple[bytes, bytes]:
        if chosen.random() < 0.5:
            return _predictions(chosen, table), lines.encode()
        changed = [json.dumps(altered(chosen, epoch)) for epoch in epochs]
        data = "\n".join(changed[: chosen.randrange(1, 9)]).encode()
        return table.encode(), mutated(chosen, [data]) if chosen.random() < 0.3 else data

    def work(content: tuple[bytes, bytes]) -> None:
        (folder / "predictions.csv").write_bytes(content[0])
        (folder / "metrics.jsonl").write_bytes(content[1])
        everything_of(folder)

    tally("fuzzed predictions and epochs", examples, series(examples, make, work))


@EXAMPLES
def test_databases_edited_by_hand(
    searched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    examples: int,
    tally: Tally,
) -> None:
    """Cells of any table have other values, rows are gone, or the bytes differ."""
    # Alembic loads its own files for each database: half of the time.
    heads: dict[str, Any] = {}
    known_head = ScriptDirectory.get_current_head
    monkeypatch.setattr(
        ScriptDirectory,
        "get_current_head",
        lambda of: heads.get(of.dir) or heads.setdefault(of.dir, known_head(of)),
    )
    database = tmp_path / "s.db"
    with contextlib.closing(sqlite3.connect(searched)) as connection:
        tables = {
            name: [row[1] for row in connection.execute(f"pragma table_info({name})")]
            for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
            if connection.execute(f"select count(*) from {name}").fetchone()[0]
        }
        known = [
            json.loads(value)
            for table in (
                "trial_user_attributes",
                "study_user_attributes",
                "study_system_attributes",
            )
            for (value,) in connection.execute(f"select value_json from {table}")
        ]
    whole = searched.read_bytes()

    def value(chosen: Random, column: str) -> Any:
        if column.endswith("_json") and chosen.random() < 0.9:
            return json.dumps(altered(chosen, chosen.choice(known)))
        odd = chosen.choice(
            (*ODD, b"\xff\0", "COMPLETE", "RUNNING", "2026-01-01 00:00:00.000000", "{}")
        )
        if isinstance(odd, list | dict):
            return json.dumps(odd)
        if isinstance(odd, str):
            return odd.encode("utf-8", "replace").decode()
        return odd if not isinstance(odd, int) or abs(odd) < 1 << 63 else str(odd)

    def edit(chosen: Random) -> bytes:
        if chosen.random() < 0.2:
            return mutated(chosen, [whole])
        database.write_bytes(whole)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            for _ in range(chosen.choice((1, 1, 2, 4))):
                table = chosen.choice([*tables])
                column = chosen.choice(tables[table])
                row = f"rowid = (select max(rowid) - {chosen.randrange(3)} from {table})"
                with contextlib.suppress(sqlite3.Error):
                    if chosen.random() < 0.8:
                        command = f"update {table} set {column} = ? where {row}"
                        connection.execute(command, (value(chosen, column),))
                    else:
                        connection.execute(f"delete from {table} where {row}")
            connection.commit()
        return database.read_bytes()

    def work(content: bytes) -> None:
        database.write_bytes(content)
        for stored in read_studies(database):
            [StudyTrial.of(trial) for trial in stored.trials]
            found, identity = selected_trial(stored), stored.record.identity
            if found is not None and identity is not None:
                make_snapshot(stored, identity.study, found.number)

    tally("fuzzed study databases", examples, series(examples, edit, work))
