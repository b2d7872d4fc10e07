"""The final model: members of one setting on folds and seeds, averaged and calibrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.bank import Dims, FeatureBank
from mmsa_cache.errors import ModelError
from mmsa_cache.splits import grouped_folds, outer_splits

from .calibration import Calibration, calibrate
from .metrics import probability_score
from .model import MultimodalClassifier
from .setting import METRICS, Setting
from .trainer import Checkpoint, Fit, Record, Task, fit_group, make_model, predict

# A single member stops on one of so many folds of the development rows.
_STOPPING_FOLDS = 8


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trained members of one setting; with one member, a model."""

    setting: Setting
    members: list[MultimodalClassifier]
    calibration: Calibration

    def predict(
        self, bank: FeatureBank, samples: NDArray[np.int64], *, calibrated: bool = True
    ) -> NDArray[np.float64]:
        """Class probabilities of original samples, (samples, classes)."""
        mean = np.mean([predict(m, bank, samples, self.setting) for m in self.members], axis=0)
        return self.calibration(mean) if calibrated else mean

    def tensors(self) -> dict[str, Tensor]:
        """Everything trained, by ``member.NUMBER.NAME``, on the CPU."""
        return {
            f"member.{number}.{name}": value.contiguous().cpu()
            for number, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }

    @classmethod
    def restore(
        cls,
        setting: Setting,
        tensors: Mapping[str, Tensor],
        calibration: Calibration,
        dims: Dims,
    ) -> Ensemble:
        """Makes the members of `tensors`' result again.

        Raises:
            ModelError: The tensors are not those of this setting.
        """
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            _, number, key = name.split(".", 2)
            states.setdefault(number, {})[key] = value
        members = []
        for number in sorted(states, key=int):
            member = make_model(setting, dims, len(calibration.offsets))
            try:
                member.load_state_dict(states[number])
            except RuntimeError as error:
                raise ModelError(f"Member {number} is not of this setting: {error}") from error
            members.append(member.eval())
        if not members:
            raise ModelError("The model file holds no member.")
        return cls(setting, members, calibration)


@dataclass(frozen=True, slots=True)
class Part:
    """One outer part: who learns from its development rows, and the rows that judge them."""

    development: NDArray[np.int64]
    judged: NDArray[np.int64]
    tasks: list[Task]


@dataclass(frozen=True, slots=True)
class Trained:
    """A final model and its figures on rows that took part in no choice."""

    ensemble: Ensemble
    fits: list[Fit]
    outer: NDArray[np.int64]
    """Rows that judged, sorted."""
    probabilities: NDArray[np.float64]
    """(outer rows, classes), calibrated"""
    figures: dict[str, Any]
    """``outer`` and ``inner`` scores, also ``_uncalibrated``; ``calibration``; a record a member
    and a part; ``spread``: mean and deviation of single members over the outer rows."""


def plan(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    outer: str,
    folds: int,
    seeds: int,
    seed: int,
) -> list[Part]:
    """Says which rows every member learns from.

    The development rows of an outer part are cut into folds that keep duplicate groups together.
    Each member trains without one fold, which decides when it stops; every row is so held out once
    a seed, and what is fitted on held-out predictions is honest.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        outer: Kind of outer split, see `mmsa_cache.splits.outer_splits`.
        folds: Folds; with 1 a member stops on an eighth of the rows.
        seeds: Members a fold.
        seed: Seed of splits and members.
    """
    parts = []
    for development, judged in outer_splits(outer, labels, groups, seed):
        cuts = grouped_folds(
            labels[development], groups[development], folds if folds > 1 else _STOPPING_FOLDS, seed
        )[:folds]
        tasks = [
            Task(development[inside], development[outside], seed + turn * folds + number)
            for turn in range(seeds)
            for number, (inside, outside) in enumerate(cuts)
        ]
        parts.append(Part(development, judged, tasks))
    return parts


def train(
    setting: Setting,
    bank: FeatureBank,
    groups: NDArray[np.int64],
    *,
    outer: str,
    names: Sequence[str],
    seed: int,
    folds: int,
    seeds: int = 1,
    averaged: bool = True,
    on_epoch: Callable[[Record], None] = lambda record: None,
    stacked: bool | None = None,
    checkpoint: Checkpoint = Checkpoint(),  # noqa: B008  (it holds nothing)
) -> Trained:
    """Trains a setting on the development rows and scores it once on the outer rows.

    Args:
        setting: What to train.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        outer: Kind of outer split, see `mmsa_cache.splits.outer_splits`; of a cross-validation
            every part is judged by the members that did not see it, and the final model has the
            members of all parts.
        names: Class names.
        seed: Seed of splits and training.
        folds: Folds of the development rows, see `plan`.
        seeds: Members a fold.
        averaged: The model is the average of its members; else the member with the best value on
            its own held-out fold.
        on_epoch: Called with each epoch's record, which also names its member.
        stacked: See `trainer.fit_group`.
        checkpoint: See `trainer.fit_group`.
    """
    labels = bank.labels.cpu().numpy()
    parts = plan(labels, groups, outer=outer, folds=folds, seeds=seeds, seed=seed)
    tasks = [task for part in parts for task in part.tasks]
    fits = fit_group(
        setting,
        bank,
        tasks,
        names=names,
        on_epoch=lambda place, record: on_epoch({"member": place + 1, **record}),
        stacked=stacked,
        checkpoint=checkpoint,
    )
    gathered: dict[str, list[Any]] = {}
    members: list[Record] = []
    chosen: list[MultimodalClassifier] = []
    calibrations: list[Calibration] = []
    for number, part in enumerate(parts):
        trained = fits[number * folds * seeds :][: folds * seeds]
        keep = range(len(trained))
        if not averaged:
            values = [result.kept[setting.metric] for result in trained]
            keep = range(values.index(max(values)), values.index(max(values)) + 1)
        held_out = [
            predict(r.model, bank, t.validation, setting)
            for r, t in zip(trained, part.tasks, strict=True)
        ]
        judged = [predict(result.model, bank, part.judged, setting) for result in trained]
        # A fold's rows are predicted by the members, one a seed, that did not learn from them.
        inner = [np.mean(held_out[fold::folds], axis=0) for fold in range(folds)]
        truth = [labels[task.validation] for task in part.tasks[:folds]]
        calibration = calibrate(inner, truth, offsets=setting.metric == "macro_f1")
        plain = np.mean([judged[place] for place in keep], axis=0)
        for key, value in (
            ("inner", np.concatenate(inner)),
            ("inner_calibrated", calibration(np.concatenate(inner))),
            ("inner_labels", np.concatenate(truth)),
            ("outer", plain),
            ("outer_calibrated", calibration(plain)),
            ("rows", part.judged),
            ("part", probability_score(labels[part.judged], calibration(plain), names)),
        ):
            gathered.setdefault(key, []).append(value)
        for place, (result, task) in enumerate(zip(trained, part.tasks, strict=True)):
            alone = probability_score(labels[part.judged], judged[place], names)
            members.append(
                {
                    "member": number * folds * seeds + place + 1,
                    "part": number + 1,
                    "fold": place % folds + 1,
                    "seed": task.seed,
                    "best_epoch": result.kept["epoch"],
                    "training_rows": len(task.train),
                    "stopping_rows": len(task.validation),
                    **{metric: result.kept[metric] for metric in METRICS},
                    "outer": {metric: alone[metric] for metric in METRICS},
                }
            )
        chosen += [trained[place].model for place in keep]
        calibrations.append(calibration)
    final = _mean_calibration(calibrations)
    every = {k: np.concatenate(v) for k, v in gathered.items() if k != "part"}
    order = np.argsort(every["rows"])
    rows, probabilities = every["rows"][order], every["outer_calibrated"][order]
    scores = gathered["part"]
    return Trained(
        Ensemble(setting, chosen, final),
        fits,
        rows,
        probabilities,
        {
            "outer": probability_score(labels[rows], probabilities, names),
            "outer_uncalibrated": probability_score(labels[rows], every["outer"][order], names),
            "inner": probability_score(every["inner_labels"], every["inner_calibrated"], names),
            "inner_uncalibrated": probability_score(every["inner_labels"], every["inner"], names),
            "calibration": {"temperature": final.temperature, "offsets": list(final.offsets)},
            "members": members,
            "parts": [{"rows": s["rows"], **{m: s[m] for m in METRICS}} for s in scores],
            "spread": {m: _spread([record["outer"][m] for record in members]) for m in METRICS},
            "spread_parts": {m: _spread([score[m] for score in scores]) for m in METRICS},
            "training_rows": len(parts[0].development),
        },
    )


def _mean_calibration(found: Sequence[Calibration]) -> Calibration:
    """One for the members of all parts: geometric mean of temperatures, mean of offsets."""
    temperature = float(np.exp(np.mean([np.log(c.temperature) for c in found])))
    offsets = np.mean([c.offsets for c in found], axis=0)
    return Calibration(temperature, tuple(offsets.tolist()))


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample deviation; a single value has none (0)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation}
