"""``mmsa bench store``."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmsa_cache.cli.main import app
from mmsa_cache.compose.bench import store as bench_store
from mmsa_cache.compose.bench.store import COLUMNS, StoreGrowth, StoreSize

SHARD_ROWS = 64
WITH_SMALL_SHARDS = f"""
import multiprocessing, sys
from mmsa_cache.cli.main import app
from mmsa_cache.compose.bench import store as bench_store

def imported(way, real=multiprocessing.get_context):
    context = real("forkserver")
    context.set_forkserver_preload(["fuse.training.trainer", "mmsa_cache.features.bank"])
    return context

multiprocessing.get_context = imported
bench_store.SHARD_ROWS = {SHARD_ROWS}
app(sys.argv[1:])
"""
"""The six processes that read are forks of one that has imported torch."""


@pytest.mark.faults
def test_a_store_of_more_shards_than_a_process_may_have_files(tmp_path: Path) -> None:
    rows = 65 * SHARD_ROWS
    command = [sys.executable, "-c", WITH_SMALL_SHARDS]
    command += ["bench", "store", "--rows", f"{SHARD_ROWS},{rows}", "--json"]
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 64; exec {shlex.join(command)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = StoreGrowth.model_validate_json(done.stdout)
    assert found.generated is True
    small, large = found.sizes
    assert (small.rows, large.rows) == (SHARD_ROWS, rows)
    # Of a row: 12 positions and 4 pools of 16 numbers, 2 keys, 2 places, 2 bytes of no operation.
    a_row = 2 * 16 * (8 + 4 + 2 + 2) + 2 * (16 + 8 + 1)
    assert (large.bytes - small.bytes) / (rows - SHARD_ROWS) == pytest.approx(a_row, rel=1e-3)
    assert (small.files, large.files) == (2, 2)
    for size in found.sizes:
        assert (size.open.open_files, size.bank.open_files) == (0, 0)
        parts = (size.write, size.merge, size.first_open, size.open, size.bank, size.epoch)
        assert min(min(took.seconds, took.cpu_seconds) for took in parts) > 0
    assert large.bank.peak_bytes > 2 * 2 * 2 * 16 * rows  # the pools are in memory
    (growth,) = found.growth
    assert growth["rows"] == 65
    assert growth["bank"]["seconds"] == large.bank.seconds / small.bank.seconds
    assert growth["open"]["open_files"] is None
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_row_a_size_and_what_it_grew_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(sizes: list[int]) -> StoreGrowth:
        assert sizes == [200, 500]
        took = {"seconds": 1.5, "cpu_seconds": 1.25}
        read = took | {"peak_bytes": 7, "open_files": 0}
        record = dict.fromkeys(("write", "merge", "epoch"), took) | {"files": 2, "bytes": 9}
        record |= dict.fromkeys(("first_open", "open", "bank"), read)
        found = [StoreSize.model_validate({**record, "rows": rows}) for rows in sizes]
        multiples = {**record, "rows": 2.5, "bank": read | {"open_files": None}}
        return StoreGrowth(sizes=found, growth=[multiples])

    monkeypatch.setattr(bench_store, "bench_store", made_up)
    result = CliRunner().invoke(app, ["bench", "store", "--rows", "200, 500"])
    assert result.exit_code == 0, result.output
    head, _, *lines = (re.split("  +", line) for line in result.stdout.splitlines())
    assert head == list(COLUMNS)
    same = ["1.5 (1.25)"] * 2 + ["2", "9"] + ["1.5 (1.25)"] * 2 + ["7", "1.5 (1.25)", "7"]
    assert lines[0] == ["200", *same, "0", "1.5 (1.25)"]
    assert lines[1] == [
        "×2.5",
        *(re.sub("(^|[(])", "\\1×", cell) for cell in same),
        "–",
        "×1.5 (×1.25)",
    ]
    assert lines[2] == ["500", *same, "0", "1.5 (1.25)"]
    assert "generated features" in result.stderr
    shown = CliRunner().invoke(app, ["bench", "store", "--rows", "200,500", "--json"])
    assert json.loads(shown.stdout)["sizes"][1]["rows"] == 500


@pytest.mark.parametrize("rows", ["", "0", "200,,400", "many", "200,-1"])
def test_what_is_no_list_of_counts_is_refused(rows: str) -> None:
    result = CliRunner().invoke(app, ["bench", "store", "--rows", rows])
    assert result.exit_code == 2
    assert f"--rows {rows!r} is no list of counts.\n" in result.stderr
    assert "Write it as --rows 200,400." in result.stderr
