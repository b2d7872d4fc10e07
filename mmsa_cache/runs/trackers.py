"""Trackers besides JSON lines: TensorBoard, MLflow and Weights & Biases.

They write to this machine unless ``MLFLOW_TRACKING_URI`` and ``WANDB_MODE`` say otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import make_folders, remove_tree
from mmsa_cache.files.sqlite_file import check_sqlite, sqlite_uri
from mmsa_cache.files.table_owners import check_owner

from .directory import RUNS

PROJECT = "mmsa"
"""Experiment of MLflow and project of Weights & Biases."""
_SECONDS_BETWEEN_WRITES = 5.0
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run or study that a tracker records."""

    name: str
    """Of the run or the study."""
    folder: Path
    """Folder of TensorBoard's event files; earlier ones in it are deleted."""
    parameters: Mapping[str, object]
    """Plain values by name."""


class Tracker(Protocol):
    """Records one run."""

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Records values of a step of a series, e.g. ``member-1``."""

    def close(self, final: Mapping[str, float] | None) -> None:
        """Ends the record with its final figures; None: the run was interrupted."""


class TensorBoard:
    """Event files, by tensorboardX."""

    def __init__(self, place: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        remove_tree(place.folder)
        make_folders(place.folder)
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

    def __init__(self, place: TrackedRun) -> None:
        make_folders(RUNS)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import logging
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SQLAlchemy's newer version, at MLflow's own calls
            import mlflow.store.db.utils  # noqa: F401  (sets the levels that are set back here)

            for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            self._begin(place)

    def _begin(self, place: TrackedRun) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server:
            _check_database(server)
        else:
            check_sqlite(RUNS / "mlflow.db", write=True)
            server = f"sqlite:///{(RUNS / 'mlflow.db').absolute()}"
        self._client = MlflowClient(server)
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
            self._metric(_metric_name(f"{series}/{key}"), value, now, step)
            for key, value in values.items()
        ]

    def _write(self) -> None:
        while self._waiting:
            part, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            self._client.log_batch(self._run, metrics=part)
        self._written = time.monotonic()


def _check_database(server: str) -> None:
    """Refuses a database of another program; MLflow itself checks servers and folders."""
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(server)
        place, dialect = str(url.set(query={})), url.get_dialect().name
    except sqlalchemy.exc.ArgumentError:
        return
    if dialect == "sqlite":
        if not (url.database and Path(url.database).exists()):
            return
        query = {"mode": "ro", "uri": "true"}  # else a look at it would undo what is being written
        url = url.set(database=sqlite_uri(Path(url.database)), query=query)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    check_owner(place, sqlalchemy.inspect(engine).get_table_names(), "MLflow")


def _metric_name(name: str) -> str:
    """A metric's name without characters that MLflow refuses."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


class WeightsAndBiases:
    """A run of Weights & Biases, offline below ``runs/wandb`` unless ``WANDB_MODE`` is set."""

    def __init__(self, place: TrackedRun) -> None:
        make_folders(RUNS / "wandb")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ["WANDB_DISABLE_GIT"] = "true"  # before the settings below count, it calls git
        import wandb

        for file in ("wandb/settings", ".wandb/settings", "config-defaults.yaml"):
            if os.path.lexists(file):
                raise SettingsError(
                    f"{file} would choose what Weights & Biases records, or where it sends it.",
                    "Remove it; WANDB_BASE_URL and the other variables say the same.",
                )
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=place.name,
            dir=str(RUNS.absolute()),
            config=dict(place.parameters),
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                use_dot_wandb=False,  # else runs/.wandb is taken where it is
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


TRACKERS: dict[str, tuple[Callable[[TrackedRun], Tracker], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "mlflow": (Mlflow, "mlflow"),
    "wandb": (WeightsAndBiases, "wandb"),
}
"""What ``--track`` takes, and the package that each needs; the extra has the tracker's name."""
