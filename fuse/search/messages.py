"""What a coordinator and its workers tell each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuse.figures.records import Metric

from .baseline_record import Baseline

if TYPE_CHECKING:
    from fuse.setting import Setting

IntArray = NDArray[np.int64]


class FeatureSource(Protocol):
    """Where a process gets the features from; sent to workers, so it must be picklable."""

    def open(self, device: str) -> Any:
        """The `mmsa_cache.features.bank.FeatureBank`, on a device."""


@dataclass(frozen=True, slots=True)
class FoldSplit:
    """One training of a setting: a fold under a seed."""

    train: IntArray
    """Rows to learn from."""
    validation: IntArray
    """Rows that choose the epoch, and score the training."""
    judged: IntArray
    """Rows that only judge at the end."""
    seed: int


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all tasks have in common."""

    source: FeatureSource
    units: Sequence[FoldSplit]
    names: tuple[str, ...]
    metric: Metric
    fit: Callable[..., Any]
    """`fuse.training.trainer.fit_group`, or its replacement."""
    predict: Callable[..., Any]
    """`fuse.training.classifier.predict`, or its replacement."""
    baseline: Callable[..., Baseline]
    """`fuse.search.baselines.fit`, or its replacement."""
    groups: IntArray
    """Duplicate groups, (samples,)."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One setting to train: on every unit for its score, or on some to judge it; or a baseline."""

    number: int
    setting: Setting
    groups: tuple[tuple[int, ...], ...]
    """Places among the job's units: groups that are trained one after another, the units of one
    side by side."""
    judge: bool = False
    """Whether predictions of the held-out and of the outer rows are wanted."""
    baseline: str = ""
    """A name of `baseline_record.TITLES`: that is fitted on the vectors of the setting."""

    @property
    def units(self) -> tuple[int, ...]:
        """Places among the job's units, in the order of the results."""
        return tuple(place for group in self.groups for place in group)


@dataclass(frozen=True, slots=True)
class EpochReport:
    """Intermediate values; the answer is whether to continue."""

    position: int
    """Trainings of the task that were done before those at work."""
    epoch: int | None
    """Epochs that those at work have behind them; None at their end."""
    values: tuple[float, ...]
    """Of those at work."""


@dataclass(frozen=True, slots=True)
class FoldPredictions:
    """Class probabilities of a trained model, (rows, classes)."""

    held_out: NDArray[np.float64]
    """Of the unit's validation rows."""
    outer: NDArray[np.float64]
    """Of its judged rows."""


@dataclass(slots=True)
class TrainingReply:
    """The end of a task that was trained or pruned."""

    units: list[float]
    """Score of each finished training."""
    parameters: int
    seconds: float
    """Time of the trainings, without the waits for answers."""
    pruned: bool = False
    held_out: list[NDArray[np.float64]] = field(default_factory=list)
    """Class probabilities of each finished training's validation rows, (rows, classes)."""
    judgements: list[FoldPredictions] = field(default_factory=list)
    """Of each training, where the task judges."""
    baseline: Baseline | None = None
    """Where the task is one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a task that cannot be trained, or of a worker that cannot work."""

    reason: str
    by_setting: bool = False
    """Whether its setting is to blame."""
