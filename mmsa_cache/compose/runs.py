"""``mmsa runs``: lists, shows and removes runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuse.figures.records import RunFigures
from fuse.figures.study import Value
from fuse.setting import DEFAULTS
from mmsa_cache.errors import MmsaError, ModelError, SettingsError
from mmsa_cache.files.disk import remove_tree
from mmsa_cache.files.locks import try_lock
from mmsa_cache.json_value import JsonObject
from mmsa_cache.names import unknown_name
from mmsa_cache.runs.directory import RUNS
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.record import Environment, RunRecord

UNFINISHED = ".unfinished-*[!k]"
"""Folders of interrupted trainings (their lock files end in ``lock``)."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A row of the list of runs; scores are None if the run cannot be read."""

    run: str
    study: str = ""
    """Studies and trials of its settings; empty without a search."""
    fusion: str = ""
    rows: int | None = None
    """Outer rows."""
    accuracy: float | None = None
    """On the outer rows, which took part in no choice."""
    macro_f1: float | None = None
    inner_macro_f1: float | None = None
    """On the inner rows; ``best`` is chosen by it."""
    age_seconds: float = 0.0
    bytes: int = 0
    problem: str = ""


def list_runs() -> list[ListedRun]:
    """The runs of the working folder, the latest first."""
    return [_list_run(run) for run in sorted(RunFolder.all(), key=RunFolder.trained_at)[::-1]]


def _list_run(run: RunFolder) -> ListedRun:
    age, size = time.time() - run.trained_at(), _folder_bytes(run.path)
    try:
        record, figures = run.record, run.figures
    except MmsaError as error:
        return ListedRun(run.name, age_seconds=age, bytes=size, problem=error.message)
    fusions = dict.fromkeys(str(model.setting.get("fusion", "")) for model in record.models)
    sources = [f"{s.name}:{s.trial}" if s.trial is not None else s.name for s in record.studies]
    return ListedRun(
        run.name,
        "+".join(dict.fromkeys(sources)),
        "+".join(fusions),
        figures.outer.rows,
        figures.outer.accuracy,
        figures.outer.macro_f1,
        run.inner_score,
        age,
        size,
    )


@dataclass(frozen=True, slots=True)
class ShownRun:
    """All records of a run but its epochs and predictions."""

    run: str
    directory: Path
    command: str
    changed: dict[str, Value]
    """Fields of the first setting that differ from their defaults."""
    record: RunRecord
    figures: RunFigures
    environment: Environment
    files: dict[str, int]
    """Bytes by name."""

    def as_json(self) -> JsonObject:
        """JSON values; records under the names of their files."""
        return {
            "run": self.run,
            "directory": str(self.directory),
            "command": self.command,
            "changed": self.changed,
            "config": self.record.as_json(),
            "metrics": self.figures.as_json(),
            "environment": self.environment.as_json(),
            "files": self.files,
        }


def changed_fields(setting: Mapping[str, Value]) -> dict[str, Value]:
    """The fields of a setting that differ from their defaults."""
    return {key: value for key, value in setting.items() if DEFAULTS.get(key) != value}


def show_run(name: str) -> ShownRun:
    """Reads the records of a run.

    Raises:
        ModelError: The run does not exist, or a file of it cannot be read.
    """
    run = RunFolder.find(name)
    setting = run.record.models[0].setting
    return ShownRun(
        run=run.name,
        directory=run.path,
        command=run.command if (run.path / "command.txt").is_file() else "",
        changed=changed_fields(setting),
        record=run.record,
        figures=run.figures,
        environment=run.environment,
        files={path.name: path.stat().st_size for path in sorted(run.path.glob("*.*"))},
    )


@dataclass(frozen=True, slots=True)
class RemovedRun:
    """What happened to one folder."""

    run: str
    bytes: int
    state: str
    """``removed``, ``would be removed`` or ``in use``."""


def remove_runs(names: Sequence[str], *, unfinished: bool, really: bool) -> list[RemovedRun]:
    """Removes runs, and the folders of interrupted trainings.

    Args:
        names: Names of runs; ``latest`` and ``best`` are not accepted.
        unfinished: Whether interrupted trainings are removed, which could be resumed.
        really: If False, nothing is removed.

    Raises:
        SettingsError: Nothing to remove is named.
        ModelError: A run does not exist.
    """
    paths = {run.path.name: run.path for run in RunFolder.all()}
    if not names and not unfinished:
        raise SettingsError("runs rm does not know what to remove.", "Name runs, or --unfinished.")
    for name in names:
        if name not in paths:
            raise unknown_name("There is no run", name, paths, kind=ModelError)
    folders = [paths[name] for name in dict.fromkeys(names)]
    if unfinished:
        folders += [path for path in sorted(RUNS.glob(UNFINISHED)) if path.is_dir()]
    return [_remove(path, really=really) for path in folders]


def _remove(folder: Path, *, really: bool) -> RemovedRun:
    size = _folder_bytes(folder)
    if not really:
        return RemovedRun(folder.name, size, "would be removed")
    if not folder.name.startswith("."):
        remove_tree(folder)
        return RemovedRun(folder.name, size, "removed")
    with try_lock(folder.with_suffix(".lock")) as free:
        if free:
            remove_tree(folder)
    return RemovedRun(folder.name, size, "removed" if free else "in use")


def _folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
