"""Where runs are recorded: JSON lines always; TensorBoard, MLflow or Weights & Biases if asked for.

Lines of ``runs/NAME/metrics.jsonl``, by ``event``:

``epoch``  ``member`` (from 1), ``epoch`` (from 1), ``loss`` (mean over the steps),
           ``learning_rate`` (after the epoch), and of the member's held-out fold ``macro_f1``,
           ``accuracy`` and ``neg_log_loss``
``refit``  the same of a member that learned from all development rows; it has no held-out fold
``final``  ``figures``: every number of ``metrics.json`` but those in lists, by its path, as
           ``outer/accuracy``

Lines of ``studies/NAME.jsonl``: ``trial`` with ``trial``, ``ended``, ``state`` (``complete``,
``pruned`` or ``fail``), ``score`` and ``parameters``; ``final`` as above. Lines of
``runs/log.jsonl``, one a finished run or search: ``time``, ``verb``, ``name``, ``seconds`` and
``figures``.

Trackers stay on this machine unless their own variables (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``)
say otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmsa_cache.console import say
from mmsa_cache.errors import SettingsError

from .directory import RUNS

LOG = RUNS / "log.jsonl"
PROJECT = "mmsa"
"""Experiment of MLflow and project of Weights & Biases."""
_SECONDS_BETWEEN_WRITES = 5.0
_MOST_AT_ONCE = 500

Scalars = dict[str, float]


@dataclass(frozen=True, slots=True)
class Place:
    """What a tracker is told when a run begins."""

    name: str
    """Of the run or the study."""
    folder: Path
    """Where TensorBoard's event files go; what an earlier try left there is replaced."""
    parameters: Mapping[str, Any]
    """Plain values by name."""


class Tracker(Protocol):
    """One place that a run is recorded in."""

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Records values of a step; ``series`` is what counts its steps, as ``member-1``."""

    def close(self, final: Mapping[str, float] | None) -> None:
        """Ends the record with its final figures; None: the run broke off."""


class Tracking:
    """Several trackers as one. One that fails is dropped, with a word, and the run goes on."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)
        self.final: Scalars | None = None
        """Figures to end with; set when the run is whole."""

    def log(self, series: str, step: int, values: Mapping[str, Any]) -> None:
        """Records the numbers among the values."""
        numbers = scalars(values)
        self._each(lambda tracker: tracker.log(series, step, numbers))

    def close(self) -> None:
        """Ends every record."""
        self._each(lambda tracker: tracker.close(self.final))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # whatever a foreign library raises: training is worth more
                del self._trackers[name]
                say(f"Tracking by {name} ended: {type(error).__name__}: {error}", style="red")


@contextmanager
def tracking(names: Sequence[str], place: Place) -> Iterator[Tracking]:
    """Opens trackers and closes them, also when what runs inside breaks off.

    Args:
        names: Of `TRACKERS`.
        place: What they are told.
    """
    whole = Tracking({name: TRACKERS[name][0](place) for name in dict.fromkeys(names)})
    try:
        yield whole
    finally:
        whole.close()


def check_trackers(names: Iterable[str]) -> None:
    """Refuses trackers that cannot be used, before anything is run.

    Raises:
        SettingsError: An unknown name, or its package is not installed.
    """
    from importlib.util import find_spec

    for name in names:
        if name not in TRACKERS:
            raise SettingsError(f"Unknown --track {name!r}.", f"Valid: {', '.join(TRACKERS)}.")
        package = TRACKERS[name][1]
        if find_spec(package) is None:
            raise SettingsError(
                f"--track {name} needs the package {package}.", f"pip install 'mmsa[{name}]'"
            )


def scalars(values: Mapping[str, Any], prefix: str = "") -> Scalars:
    """The numbers of nested mappings by their path; lists and texts are left out."""
    found: Scalars = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


class JsonLines:
    """A file that grows by a line an event.

    Args:
        path: The file.
        fresh: Begin it anew.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.write_bytes(b"")

    def append(self, event: str, **fields: Any) -> None:
        """Adds a line in one write, so that lines of several processes do not mix."""
        line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
        with self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):  # a killed process left half of one
                line = "\n" + line
            file.write(line.encode())

    def read(self) -> list[dict[str, Any]]:
        """Its whole lines; half ones are passed over."""
        found = []
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                found.append(record)
        return found


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


class TrialLines:
    """Finished trials of a study, each recorded once.

    Args:
        lines: The study's file; trials that it holds from earlier searches are not repeated there.
        tracked: Trackers; they begin with this search, so they get every trial.
    """

    def __init__(self, lines: JsonLines, tracked: Tracking) -> None:
        self._lines, self._tracked = lines, tracked
        self._written = {(line.get("trial"), line.get("ended")) for line in lines.read()}
        self._told: set[int] = set()

    def add(self, trials: Iterable[Any]) -> None:
        """Records those that are finished and new; takes the trials of an Optuna study."""
        for trial in trials:
            if trial.number in self._told or not trial.state.is_finished():
                continue
            self._told.add(trial.number)
            state, ended = trial.state.name.lower(), trial.datetime_complete.isoformat()
            score = trial.value if state == "complete" else None
            if (trial.number, ended) not in self._written:
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


class TensorBoard:
    """Event files, by tensorboardX."""

    def __init__(self, place: Place) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(place.folder, ignore_errors=True)
        self._writer = SummaryWriter(str(place.folder))
        rows = [f"    {key} = {value!r}" for key, value in place.parameters.items()]
        self._writer.add_text("settings", "\n".join(rows))

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for key, value in values.items():
            self._writer.add_scalar(f"{series}/{key}", value, step)

    def close(self, final: Mapping[str, float] | None) -> None:
        """See `Tracker`."""
        for key, value in (final or {}).items():
            self._writer.add_scalar(f"final/{key}", value, 0)
        self._writer.close()


class Mlflow:
    """A run of an MLflow store: the one of ``MLFLOW_TRACKING_URI``, else ``runs/mlflow.db``."""

    def __init__(self, place: Place) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import logging
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SQLAlchemy's newer version, at MLflow's own calls
            import mlflow.store.db.utils  # noqa: F401  (sets the levels that are set back here)

            for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            self._begin(place)

    def _begin(self, place: Place) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        RUNS.mkdir(exist_ok=True)
        local = f"sqlite:///{(RUNS / 'mlflow.db').resolve()}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        self._metric = Metric
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(experiment, run_name=place.name).info.run_id
        params = [Param(key, str(value)) for key, value in place.parameters.items()]
        for first in range(0, len(params), 100):  # as many as one call takes
            self._client.log_batch(self._run, params=params[first : first + 100])
        self._waiting: list[Any] = []
        self._written = time.monotonic()

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._add(series, step, values)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self._write()

    def close(self, final: Mapping[str, float] | None) -> None:
        """See `Tracker`."""
        self._add("final", 0, final or {})
        self._write()
        self._client.set_terminated(self._run, "FINISHED" if final is not None else "KILLED")

    def _add(self, series: str, step: int, values: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        # Names may not hold @ or +.
        self._waiting += [
            self._metric(_plain(f"{series}/{key}"), value, now, step)
            for key, value in values.items()
        ]

    def _write(self) -> None:
        while self._waiting:
            part, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            self._client.log_batch(self._run, metrics=part)
        self._written = time.monotonic()


def _plain(name: str) -> str:
    """A metric's name with nothing in it that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


class WeightsAndBiases:
    """A run of Weights & Biases, offline below ``runs/wandb`` unless ``WANDB_MODE`` is set."""

    def __init__(self, place: Place) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        RUNS.mkdir(exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=place.name,
            dir=str(RUNS.resolve()),
            config=dict(place.parameters),
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
        self._series: set[str] = set()

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if series not in self._series:  # its own steps never fall, those of members begin anew
            self._series.add(series)
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        named = {f"{series}/{key}": value for key, value in values.items()}
        self._run.log({f"{series}/step": step, **named})

    def close(self, final: Mapping[str, float] | None) -> None:
        """See `Tracker`."""
        self._run.summary.update({f"final/{key}": value for key, value in (final or {}).items()})
        self._run.finish(exit_code=0 if final is not None else 1)


TRACKERS: dict[str, tuple[Callable[[Place], Tracker], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "mlflow": (Mlflow, "mlflow"),
    "wandb": (WeightsAndBiases, "wandb"),
}
"""What ``--track`` takes, and the package that each needs; the extra has the tracker's name."""
