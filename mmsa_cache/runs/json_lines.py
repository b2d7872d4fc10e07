"""JSON lines of runs and searches.

Lines of ``runs/NAME/metrics.jsonl``, by ``event``:

``epoch``  ``member`` (from 1), ``epoch`` (from 1), ``loss`` (mean over the steps),
           ``learning_rate`` (after the epoch), and of the member's held-out fold ``macro_f1``,
           ``accuracy`` and ``neg_log_loss``
``refit``  the same of a member that learned from all development rows; it has no held-out fold
``calibration``  as ``epoch``, of a member that left out two folds and is no part of the model
``final``  ``figures``: every number of ``metrics.json`` but those in lists, by its path, as
           ``outer/accuracy``

Lines of ``studies/NAME.jsonl``: ``trial`` with ``trial``, ``ended``, ``state`` (``complete``,
``pruned`` or ``fail``), ``score`` and ``parameters``; ``final`` as above. Lines of
``runs/log.jsonl``, one a finished run or search: ``time``, ``verb``, ``name``, ``seconds`` and
``figures``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import append_line, make_folders, write_atomically
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.json_value import JsonObject

from .directory import RUNS
from .tracking import Tracking

LOG = RUNS / "log.jsonl"
_MOST_BYTES = 64 << 20
"""Of a file that is read: a hundred thousand trials."""


class JsonLines:
    """A file with one line an event.

    Args:
        path: The file.
        fresh: Truncate it first.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        make_folders(path.parent)
        if fresh:
            write_atomically(path, b"")

    def append(self, event: str, **fields: Any) -> None:
        """Adds a line in one write, so that lines of several processes do not mix."""
        append_line(self.path, json.dumps({"event": event, **fields}, ensure_ascii=False))

    def read(self) -> list[JsonObject]:
        """The complete lines; incomplete ones are skipped.

        Raises:
            SettingsError: The file is a link, no regular file, or too large.
        """
        try:
            data = read_regular(self.path, _MOST_BYTES, links=False)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.path} cannot be read: {error}.", "Move it away.") from error
        found = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError):
                record = parse_json(line)
                if isinstance(record, dict):
                    found.append(record)
        return found


class TrialLines:
    """Finished trials of a study, each recorded once.

    Args:
        lines: The study's file; trials of earlier searches in it are not repeated.
        tracked: Trackers; they begin with this search, so they get every trial.
    """

    def __init__(self, lines: JsonLines, tracked: Tracking) -> None:
        self._lines, self._tracked = lines, tracked
        self._written = {(str(line.get("trial")), str(line.get("ended"))) for line in lines.read()}
        self._seen: set[int] = set()

    def add(self, trials: Iterable[Any]) -> None:
        """Records those that are finished and new; takes the trials of an Optuna study."""
        for trial in trials:
            if trial.number in self._seen or not trial.state.is_finished():
                continue
            self._seen.add(trial.number)
            state, ended = trial.state.name.lower(), trial.datetime_complete.isoformat()
            score = trial.value if state == "complete" else None
            if (str(trial.number), ended) not in self._written:
                self._lines.append(
                    "trial",
                    trial=trial.number,
                    ended=ended,
                    state=state,
                    score=score,
                    parameters=trial.params,
                )
            values = trial.params | ({} if score is None else {"score": score})
            self._tracked.log("trial", trial.number, values)

    def end(self, final: Mapping[str, float]) -> None:
        """Records the study's outcome."""
        self._lines.append("final", figures=final)


def log_run(verb: str, name: str, seconds: float, final: Mapping[str, float]) -> None:
    """Adds a finished run to ``runs/log.jsonl``."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    JsonLines(LOG).append("run", time=stamp, verb=verb, name=name, seconds=seconds, figures=final)
