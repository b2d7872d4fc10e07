"""A search without training: what stands for the trainer, and a program that runs it.

Scores follow from the setting and the fold alone, so that tests know them beforehand.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import fuse.search.forked  # noqa: F401  (workers import it, and are forked from here)
from fuse.figures.records import EpochRecord
from fuse.search.worker import serve
from fuse.setting import Setting
from fuse.training.task import Fit, Task, TrainingError
from mmsa_cache.store.identity import Origin

if TYPE_CHECKING:
    from fuse.search.study import StudyConfig

NAMES = ("positive", "neutral", "negative")
ROWS = 120
LABELS = np.tile([0, 1, 2], ROWS // 3)
GROUPS = np.arange(ROWS)
EPOCHS = 4
ORIGIN = Origin(text="made up", image="made up", classes=NAMES)


def make_study(name: str = "fake", **changes: Any) -> StudyConfig:
    from fuse.search.study import StudyConfig

    protocol = {"outer": "grouped", "folds": 3, "seed": 1}
    protocol |= {key: changes.pop(key) for key in ("folds", "seed") if key in changes}
    values: dict[str, Any] = {
        "protocol": protocol,
        "sampler": {"kind": "tpe", "startup": 4},
        "pruner": {"kind": "none"},
        "fixed": {"epochs": EPOCHS, "keep": "last"},
        "space": {
            "fusion": ["concat", "encoder"],
            "layers": [1, 2, 3],
            "text_dim": [16, 32],
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        },
    }
    return StudyConfig.model_validate({"name": name, **values, **changes})


@dataclass(frozen=True)
class FakeSource:
    """Stands for a bank: nothing is read from it."""

    def open(self, device: str) -> str:
        return device


def score_of(setting: Setting, fold: int) -> float:
    """Best near a learning rate of 0.01, with an offset a fold."""
    distance = abs(np.log10(setting.learning_rate) + 2)
    return float(0.8 - 0.1 * distance - 0.02 * (setting.fusion == "encoder") + 0.01 * fold)


@dataclass(frozen=True)
class FakeFit:
    """Stands for `fuse.training.trainer.fit_group`.

    Args:
        folder: Where it leaves a line for every training begun.
        seconds: How long an epoch takes.
        kill: Trainings by whose second epoch the process kills itself: so often in all.
        nan_from: Trials with a learning rate from here on diverge.
    """

    folder: Path
    seconds: float = 0.0
    kill: int = 0
    nan_from: float = 1.0

    def __call__(
        self,
        setting: Setting,
        bank: Any,
        tasks: Sequence[Task],
        *,
        names: tuple[str, ...],
        on_epoch: Callable[[EpochRecord], None],
    ) -> list[Fit]:
        folds = [int(task.validation[0]) % 3 for task in tasks]
        with (self.folder / "trainings.txt").open("a") as log:
            for fold in folds:
                log.write(f"{os.getpid()} {setting.learning_rate} {fold}\n")
        histories: list[list[EpochRecord]] = [[] for _ in tasks]
        for epoch in range(1, setting.epochs + 1):
            time.sleep(self.seconds)
            if setting.learning_rate >= self.nan_from:
                raise TrainingError(f"The loss is nan in epoch {epoch}.")
            if epoch == 2 and self._dies():
                os.kill(os.getpid(), signal.SIGKILL)
            for member, (fold, history) in enumerate(zip(folds, histories, strict=True), start=1):
                value = score_of(setting, fold) * (0.5 + 0.5 * epoch / setting.epochs)
                scores = {"macro_f1": value, "accuracy": value, "neg_log_loss": -1.0}
                history.append(
                    EpochRecord(member=member, epoch=epoch, loss=1.0, learning_rate=1.0, **scores)
                )
                on_epoch(history[-1])
        return [Fit(torch.nn.Linear(setting.text_dim, 1), of[-1], of) for of in histories]

    def _dies(self) -> bool:
        for number in range(self.kill):
            try:
                (self.folder / f"killed-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def fake_predict(model: Any, bank: Any, samples: np.ndarray, setting: Setting) -> np.ndarray:
    """Right for three rows of four."""
    right = np.eye(3)[LABELS[samples]]
    return np.where((samples % 4 == 0)[:, None], np.roll(right, 1, 1), right)


def fake_baseline(
    name: str,
    setting: Setting,
    bank: Any,
    units: list[Any],
    groups: np.ndarray,
    classes: int,
    metric: str,
) -> Any:
    """Right for the rows for which `fake_predict` is, but for every tenth."""
    from fuse.search.baseline_record import Baseline
    from fuse.search.held_out import HeldOut

    def predicted(rows: np.ndarray) -> np.ndarray:
        found = fake_predict(None, bank, rows, setting)
        return np.where((rows % 10 == 0)[:, None], np.full((1, classes), 1 / classes), found)

    parts = {
        key: HeldOut.average(rows, [predicted(of) for of in rows]).encode()
        for key, rows in (
            ("held_out", [unit.validation for unit in units]),
            ("outer", [unit.judged for unit in units]),
        )
    }
    return Baseline(name=name, units=[0.5] * len(units), tuned=[], seconds=0.1, **parts)


class ThreadWorker(threading.Thread):
    """A worker inside this process: for what needs no process to be killed."""

    exitcode = 0

    def terminate(self) -> None:
        """It ends with its pipe."""

    kill = terminate


def start_thread(pipe: Connection, device: str) -> ThreadWorker:
    worker = ThreadWorker(target=serve, args=(pipe, device), daemon=True)
    worker.start()
    return worker


def start_as_on_a_gpu(pipe: Connection, device: str) -> ThreadWorker:
    """A worker whose pool takes it for one on the device, though it has only a CPU."""
    return start_thread(pipe, "cpu")


def run(storage: str | Path, folder: Path, trials: int, **options: Any) -> dict[str, Any]:
    """Runs a search with the fake trainer; its record."""
    # Workers import this module too, and have no use for the rest of a search.
    from fuse.search.pool import TrainingData, WorkerOptions, start_process
    from fuse.search.search import search

    seed = options.pop("seed", 1)
    study = options.pop("study", make_study(seed=seed))
    workers = WorkerOptions(
        options.pop("devices", ("cpu",)),
        options.pop("fit", FakeFit(folder)),
        options.pop("predict", fake_predict),
        options.pop("start", start_process),
        options.pop("baseline", fake_baseline),
    )
    data = TrainingData(FakeSource(), LABELS, GROUPS, ORIGIN)
    return search(study, data, trials, storage=storage, workers=workers, **options).model_dump(
        mode="json"
    )


def main() -> None:
    """``STORAGE FOLDER TRIALS WORKERS SECONDS [ADDRESS]`` (of a Ray cluster); prints the record."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where tests run behind a shell
    storage, folder, trials, workers, seconds, *address = sys.argv[1:]
    place: str | Path = storage if "://" in storage else Path(storage)
    fit = FakeFit(Path(folder), float(seconds))
    options: dict[str, Any] = {"devices": ["cpu"] * int(workers), "fit": fit}
    try:
        with contextlib.ExitStack() as stack:
            if address:
                from fuse.search.ray_pool import RayProcess
                from mmsa_cache.native.ray_cluster import ray_cluster

                stack.enter_context(ray_cluster(*address))
                options["start"] = RayProcess
            record = run(place, Path(folder), int(trials), **options)
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
