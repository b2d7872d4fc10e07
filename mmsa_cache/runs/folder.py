"""The folder of a run or an export: the one reader and writer of its files."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, RootModel

from fuse.figures.predictions import Predictions
from fuse.figures.records import EpochRecord, RunFigures
from fuse.figures.study import StudySnapshot
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError
from mmsa_cache.files.disk import write_atomically
from mmsa_cache.files.paths import resolve_declared
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.json_value import Json
from mmsa_cache.names import unknown_name
from mmsa_cache.validation import validate

from .directory import RUNS
from .predictions import format_predictions, parse_predictions
from .record import VERSION, Environment, RunRecord

_MOST_BYTES = 64 << 20
"""Of one file."""
MODEL_FILE = "model.safetensors"
REMAKE = "Train the run again; of an export: mmsa export the run again, with --force."
LATEST, BEST = "latest", "best"
"""Stand for a run unless one has that name."""
M = TypeVar("M", bound=BaseModel)


class _Snapshots(RootModel[list[StudySnapshot]]):
    """The content of ``studies.json``."""


def _line(number: int, text: str) -> Json:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


class RunFolder:
    """The folder of a run or an export; each file is read at its first use and cached.

    Every property raises a ModelError if its file is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(cls, name: str | os.PathLike[str]) -> RunFolder:
        """Finds a run by its name below ``runs``, or a run or an export by its path.

        Args:
            name: Also ``latest``, the run trained last, or ``best``, see `RunFolder.best`.

        Raises:
            ModelError: There is none; with a list of all runs.
        """
        for path in (RUNS / name, resolve_declared(Path(name))):
            if os.path.isfile(path / "config.json"):  # noqa: PTH113  (a name may be too long)
                return cls(path)
        runs = cls.all()
        if runs and str(name) in (LATEST, BEST):
            found = max(runs, key=cls.trained_at) if str(name) == LATEST else cls.best()[0]
            say(f"The {name} run: {found.name}.")
            return found
        known = [*sorted(run.name for run in runs), *([LATEST, BEST] if runs else [])]
        hint = "" if known else "Run mmsa train first."
        raise unknown_name("There is no run", str(name), known, hint, ModelError)

    @classmethod
    def all(cls) -> list[RunFolder]:
        """The runs below ``runs``."""
        return [cls(path.parent) for path in RUNS.glob("[!.]*/config.json")]

    @classmethod
    def best(cls) -> tuple[RunFolder, list[RunFolder]]:
        """The run with the highest macro-F1 on its inner rows, and all compared runs.

        Compared are the latest readable run and all others with the same inner rows. Outer rows
        have no part in the choice.

        Raises:
            ModelError: No run has inner rows.
        """
        readable = []
        for run in sorted(cls.all(), key=cls.trained_at, reverse=True):
            with contextlib.suppress(ModelError):  # damaged, or of another version
                if run.figures.inner is not None:
                    readable.append(run)
        if not readable:
            hint = "Name one." if cls.all() else "Run mmsa train first."
            raise ModelError(f"No run below {RUNS} can be compared with others.", hint)
        equal = [run for run in readable if run._inner_rows() == readable[0]._inner_rows()]
        return max(equal, key=lambda run: run.inner_score or 0.0), equal

    @property
    def inner_score(self) -> float | None:
        """Macro-F1 of the inner rows; None if none were held out."""
        return self.figures.inner.macro_f1 if self.figures.inner else None

    def _inner_rows(self) -> object:
        """A value that is equal for runs with the same inner rows."""
        record, inner = self.record, self.figures.inner
        data = None if record.origin is None else (record.origin.data, record.origin.val)
        protocol = record.protocol
        rows = inner.rows if inner else 0
        return record.classes, data, protocol.outer, protocol.seed, protocol.folds > 1, rows

    def trained_at(self) -> float:
        """Time of the training, in seconds of the system's clock."""
        return (self.path / "config.json").stat().st_mtime

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    @functools.cached_property
    def record(self) -> RunRecord:
        """``config.json``.

        Raises:
            ModelError: As of every file, or a newer mmsa wrote it.
        """
        content = self._json("config.json")
        number = content.get("version", 1) if isinstance(content, dict) else 1
        if isinstance(number, int) and number > VERSION:
            raise ModelError(
                f"{self.path / 'config.json'} is of version {number}; this mmsa reads runs up to "
                f"version {VERSION}.",
                "Update mmsa.",
            )
        return self._validated(RunRecord, content, "config.json")

    @functools.cached_property
    def figures(self) -> RunFigures:
        """``metrics.json``."""
        found = self._validated(RunFigures, self._json("metrics.json"), "metrics.json")
        classes = self.record.classes
        every = (found.outer, found.inner, found.outer_without_duplicates, *found.halves.values())
        for scores in (*every, found.intervals):
            if scores is not None and [*scores.per_class] != classes:
                raise ModelError(
                    f"{self.path / 'metrics.json'} is malformed: it has the classes "
                    f"{', '.join(scores.per_class)}, config.json has {', '.join(classes)}.",
                    REMAKE,
                )
        return found

    @functools.cached_property
    def environment(self) -> Environment:
        """``env.json``."""
        return self._validated(Environment, self._json("env.json"), "env.json")

    @functools.cached_property
    def snapshots(self) -> list[StudySnapshot]:
        """``studies.json``: snapshots of the searched studies; may be empty."""
        if not (self.path / "studies.json").is_file():
            return []
        return self._validated(_Snapshots, self._json("studies.json"), "studies.json").root

    @functools.cached_property
    def command(self) -> str:
        """``command.txt``: the command that made the run."""
        with self._reading("command.txt") as data:
            return data.decode().strip()

    @functools.cached_property
    def predictions(self) -> Predictions:
        """``predictions.csv``: class probabilities of the outer rows."""
        classes = self.record.classes
        with self._reading("predictions.csv") as data:
            return parse_predictions(data.decode(), classes)

    @functools.cached_property
    def history(self) -> list[EpochRecord]:
        """The epochs of the members of the folds, from ``metrics.jsonl``."""
        with self._reading("metrics.jsonl") as data:
            lines = [_line(n, text) for n, text in enumerate(data.decode().splitlines(), start=1)]
        return [
            self._validated(EpochRecord, line, f"metrics.jsonl, line {number},")
            for number, line in enumerate(lines, start=1)
            if not isinstance(line, dict) or line.get("event", "epoch") == "epoch"
        ]

    def file_path(self, name: str) -> Path:
        """The path of a file.

        Raises:
            ModelError: It is a link that leads out of the working folder and the run.
        """
        path = self.path / name
        found = Path(os.path.realpath(path))  # (Path.resolve raises for links in a circle)
        if not any(found.is_relative_to(home) for home in (Path.cwd(), self.path.resolve())):
            raise ModelError(f"{path} is a link that leads out of the working folder.", REMAKE)
        return path

    def _json(self, name: str) -> Json:
        with self._reading(name) as data:
            return parse_json(data)

    def _validated(self, model: type[M], content: object, what: str) -> M:
        return validate(model, content, f"{self.path / what} is malformed:", REMAKE, ModelError)

    @contextmanager
    def _reading(self, name: str) -> Iterator[bytes]:
        """Yields the bytes of a file; errors inside the block become a ModelError."""
        path = self.file_path(name)
        try:
            yield read_regular(path, _MOST_BYTES)
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read: {error.strerror or error}.", REMAKE
            ) from error
        except (ValueError, OverflowError) as error:
            raise ModelError(f"{path} is malformed: {error}.", REMAKE) from error

    def write(
        self,
        record: RunRecord,
        figures: RunFigures,
        environment: Environment,
        snapshots: Sequence[StudySnapshot],
        predictions: Predictions,
        command: str,
    ) -> None:
        """Writes every file but the model, the epochs and the report."""
        write_json(self.path / "config.json", record.as_json())
        write_json(self.path / "metrics.json", figures.as_json())
        write_json(self.path / "env.json", environment.as_json())
        if snapshots:
            write_json(self.path / "studies.json", [s.as_json() for s in snapshots])
        write_atomically(self.path / "command.txt", f"{command}\n".encode())
        table = format_predictions(predictions, record.classes)
        write_atomically(self.path / "predictions.csv", table.encode())


def command_line() -> str:
    """The command of this process, as it was typed."""
    return shlex.join(["mmsa", *sys.argv[1:]])


def write_json(path: Path, content: object) -> None:
    """Replaces a file of a run or an export."""
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")
