"""What the members of a final model are worth on rows they did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import Calibration, Probabilities
from fuse.figures.metrics import probability_score, selection_score
from fuse.setting import METRICS, Setting
from mmsa_cache.features.bank import FeatureBank

from .calibration import calibrate
from .classifier import predict
from .ensemble import Blend
from .plan import Part
from .task import Fit, Record


@dataclass(frozen=True, slots=True)
class MemberBlends:
    """Members of one setting on one outer part."""

    folds: Blend
    """Each without one fold."""
    model: Blend
    """Those that the final model is of."""


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """What the members of one outer part predict."""

    inner: Probabilities
    """Of development rows by members that did not learn from them, fold after fold"""
    inner_labels: NDArray[np.int64]
    outer: Probabilities
    """Of the outer rows, in the order of `Part.judged`"""
    calibration: Calibration

    @classmethod
    def by(
        cls,
        part: Part,
        pairs: Sequence[MemberBlends],
        bank: FeatureBank,
        labels: NDArray[np.int64],
        folds: int,
        setting: Setting,
    ) -> JudgedPart:
        inner, truth = [], []
        for fold, task in enumerate(part.tasks[:folds]):
            # A fold's rows are predicted by the members, one a seed, that did not learn from them.
            without = [Blend(p.folds.setting, p.folds.members[fold::folds]) for p in pairs]
            inner.append(np.mean([b.predict(bank, task.validation) for b in without], axis=0))
            truth.append(labels[task.validation])
        offsets = setting.offsets
        if offsets == "fitted" and setting.metric != "macro_f1":
            offsets = "none"
        return cls(
            np.concatenate(inner),
            np.concatenate(truth),
            np.mean([pair.model.predict(bank, part.judged) for pair in pairs], axis=0),
            calibrate(inner, truth, offsets=offsets, prior=setting.prior),
        )


def overall_figures(
    parts: Sequence[Part],
    judged: Sequence[JudgedPart],
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> Record:
    """Scores of the whole, with and without calibration, and of every outer part."""
    truth = np.concatenate([labels[part.judged] for part in parts])
    inner_truth = np.concatenate([found.inner_labels for found in judged])
    calibration = mean_calibration([found.calibration for found in judged])
    scores = [
        selection_score(labels[part.judged], found.calibration(found.outer))
        for part, found in zip(parts, judged, strict=True)
    ]
    sets = {
        "outer": (truth, [j.calibration(j.outer) for j in judged]),
        "outer_uncalibrated": (truth, [j.outer for j in judged]),
        "inner": (inner_truth, [j.calibration(j.inner) for j in judged]),
        "inner_uncalibrated": (inner_truth, [j.inner for j in judged]),
    }
    return {
        **{
            key: probability_score(rows, np.concatenate(found), names)
            for key, (rows, found) in sets.items()
        },
        "calibration": {
            "temperature": calibration.temperature,
            "offsets": list(calibration.offsets),
        },
        "parts": [
            {"rows": len(part.judged), **found} for part, found in zip(parts, scores, strict=True)
        ],
        "spread_parts": {m: _spread([score[m] for score in scores]) for m in METRICS},
    }


def duplicate_figures(
    parts: Sequence[Part],
    judged: Sequence[JudgedPart],
    guids: Sequence[str],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    names: Sequence[str],
) -> Record:
    """Which outer rows show a post that their part learned from, and the figures without them."""
    twins = [np.isin(groups[part.judged], groups[part.development]) for part in parts]
    rows = np.concatenate([part.judged[~twin] for part, twin in zip(parts, twins, strict=True)])
    found = np.concatenate(
        [of.calibration(of.outer)[~twin] for of, twin in zip(judged, twins, strict=True)]
    )
    doubled = np.concatenate([part.judged[twin] for part, twin in zip(parts, twins, strict=True)])
    return {
        "duplicates": {
            "rows": len(doubled),
            "guids": [guids[row] for row in sorted(doubled.tolist())],
        },
        "outer_without_duplicates": (
            probability_score(labels[rows], found, names) if len(rows) else None
        ),
    }


def member_figures(
    settings: Sequence[Setting],
    parts: Sequence[Part],
    trained: Sequence[Sequence[MemberBlends]],
    fits: Sequence[Fit],
    bank: FeatureBank,
    labels: NDArray[np.int64],
) -> Record:
    """A record a member of the folds: where it stopped, what it is worth alone; and the spread."""
    place = {id(fit.model): number for number, fit in enumerate(fits)}
    records = []
    for number, setting in enumerate(settings):
        for outer, (part, pairs) in enumerate(zip(parts, trained, strict=True)):
            for task, model in zip(part.tasks, pairs[number].folds.members, strict=True):
                kept = fits[place[id(model)]].kept
                found = predict(model, bank, part.judged, setting)
                records.append(
                    {
                        "member": place[id(model)] + 1,
                        "setting": number + 1,
                        "part": outer + 1,
                        "seed": task.seed,
                        "best_epoch": kept["epoch"],
                        "training_rows": len(task.train),
                        "stopping_rows": len(task.validation),
                        **{metric: kept[metric] for metric in METRICS},
                        "outer": selection_score(labels[part.judged], found),
                    }
                )
    spread = {m: _spread([record["outer"][m] for record in records]) for m in METRICS}
    return {"members": records, "spread": spread}


def mean_calibration(found: Sequence[Calibration]) -> Calibration:
    """One for the members of all parts: geometric mean of temperatures, mean of offsets."""
    temperature = float(np.exp(np.mean([np.log(c.temperature) for c in found])))
    offsets = np.mean([c.offsets for c in found], axis=0)
    return Calibration(temperature, tuple(offsets.tolist()))


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample deviation; a single value has none (0)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation}
