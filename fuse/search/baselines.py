"""Classical models beside a search: logistic regression and an RBF support vector machine.

Both read the standardised pooled vectors that the study may read and are fitted by scikit-learn on
the rows and folds of the trials. What they are tuned by is decided inside each fold's training
rows, on inner folds that keep duplicate groups together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuse.figures.metrics import selection_score
from fuse.figures.record import Number
from fuse.figures.records import Metric
from fuse.figures.study import BaselineScores, BesideBaseline
from fuse.models.modality import modality_of
from fuse.setting import Setting
from fuse.training.classifier import gather_batch
from mmsa_cache.data.splits import grouped_folds
from mmsa_cache.features.bank import FeatureBank

from .baseline_record import TITLES, Baseline
from .greedy import gains
from .held_out import HeldOut, HeldOutRecord, stack
from .messages import FoldPredictions, FoldSplit

Floats = NDArray[Any]
Codes = NDArray[np.int64]

INNER_FOLDS = 3
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
"""C of the logistic regression, tried from the smallest until two in a row are no better."""
COSTS = (1.0, 2.0, 4.0, 8.0)
"""C of the support vector machine."""
WIDTHS = (0.25, 0.5, 1.0)
"""Its gamma, in units of 1 / features."""
MOST_ROWS = {"logistic": 20_000, "svc": 6_000}
"""Rows above which a baseline would take longer than the trials, or too much memory."""
_ROWS_AT_ONCE = 1024
_TOLERANCE = 1e-3
_MOST_STEPS = 300


@dataclass(frozen=True, slots=True)
class FoldData:
    """The rows of one fold, standardised by its training rows."""

    train: Floats
    """(rows, features) float32"""
    labels: Codes
    """(rows,)"""
    others: Floats
    """Rows to predict, (others, features) float32"""
    folds: list[tuple[Codes, Codes]]
    """Inner folds: positions among the training rows."""
    classes: int
    metric: Metric

    def score(self, rows: Codes, probabilities: Floats) -> float:
        """The metric on some of the training rows."""
        return selection_score(self.labels[rows], probabilities).value(self.metric)


def fit(
    name: str,
    setting: Setting,
    bank: FeatureBank,
    units: Sequence[FoldSplit],
    groups: Codes,
    classes: int,
    metric: Metric,
) -> Baseline:
    """Fits a baseline on every fold.

    Args:
        name: One of `TITLES`.
        setting: Names the vectors that are read, see `fuse.search.study.StudyConfig.vectors`.
        bank: Features of all rows.
        units: The folds; all have the same outer rows.
        groups: Duplicate groups, (samples,).
        classes: Number of classes.
        metric: Tunes and scores.

    Raises:
        SettingsError: A class is too rare for the inner folds.
    """
    started = time.perf_counter()
    labels = bank.labels.cpu().numpy()
    scores, tuned, inside, outside = [], [], [], []
    for unit in units:
        rows = np.concatenate([unit.train, unit.validation, unit.judged])
        values = _standardised(_vectors(bank, rows, setting), len(unit.train))
        truth = labels[unit.train]
        folds = grouped_folds(truth, groups[unit.train], INNER_FOLDS, unit.seed)
        cut = len(unit.train)
        part = FoldData(values[:cut], truth, values[cut:], folds, classes, metric)
        chosen, found = _METHODS[name](part)
        held_out, outer = np.split(found, [len(unit.validation)])
        scores.append(selection_score(labels[unit.validation], held_out).value(metric))
        tuned.append(chosen)
        inside.append(held_out)
        outside.append(outer)
    return Baseline(
        name=name,
        units=scores,
        tuned=tuned,
        seconds=round(time.perf_counter() - started, 2),
        held_out=HeldOut.of_units([unit.validation for unit in units], inside).encode(),
        outer=HeldOut.of_units([unit.judged for unit in units], outside).encode(),
    )


def _vectors(bank: FeatureBank, rows: Codes, setting: Setting) -> Floats:
    """The pooled vectors that a setting names, beside each other, (rows, features) float32; NaN
    where a row lacks their modality."""
    bank = bank.using(*setting.encoders)
    parts = []
    for items in bank.items(rows, variants=False).split(_ROWS_AT_ONCE):
        batch = gather_batch(bank, items, setting)
        read = [
            batch.filled(name, torch.nan).float()
            for name in batch.vectors
            if setting.modality in ("both", modality_of(name))
        ]
        parts.append(torch.cat(read, 1).cpu().numpy())
    return np.concatenate(parts)


def _standardised(values: Floats, learned: int) -> Floats:
    """By mean and deviation of the first rows; constant features stay 0, and NaN are 0."""
    known: Any = values[:learned]
    if not (whole := not np.isnan(values).any()):
        known = np.ma.masked_invalid(known)
    mean, deviation = known.mean(0), known.std(0)
    if not whole:  # where all rows lack a feature it has neither
        mean, deviation = mean.filled(0), deviation.filled(0)
    found = (values - mean) / np.where(deviation > 0, deviation, 1)
    return found if whole else np.nan_to_num(found, copy=False, nan=0.0)


def _logistic(part: FoldData) -> tuple[dict[str, Number], Floats]:
    """Multinomial logistic regression; returns C and the probabilities of the other rows."""
    paths = [_regressions(part.train[i], part.labels[i]) for i, _ in part.folds]
    best, worse, chosen = -np.inf, 0, PENALTIES[0]
    for penalty in PENALTIES:
        models = [next(path) for path in paths]
        score = fmean(
            part.score(out, _spread(model.predict_proba(part.train[out]), model, part.classes))
            for model, (_, out) in zip(models, part.folds, strict=True)
        )
        if score > best:
            best, worse, chosen = score, 0, penalty
        elif (worse := worse + 1) == 2:
            break
    path = zip(PENALTIES, _regressions(part.train, part.labels), strict=True)
    model = next(model for penalty, model in path if penalty == chosen)
    return {"C": chosen}, _spread(model.predict_proba(part.others), model, part.classes)


def _regressions(values: Floats, labels: Codes) -> Iterator[Any]:
    """Regressions of falling penalty, each begun where the one before ended."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    model = LogisticRegression(warm_start=True, tol=_TOLERANCE, max_iter=_MOST_STEPS)
    for penalty in PENALTIES:
        yield model.set_params(C=penalty).fit(values, labels)


def _svc(part: FoldData) -> tuple[dict[str, Number], Floats]:
    """Support vectors on exp(−γ·|x − y|²), whose decision values a multinomial logistic regression
    turns into probabilities, fitted on the inner folds' held-out rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    features = part.train.shape[1]
    inside, outside = (_distances(x, part.train) / features for x in (part.train, part.others))
    order = np.concatenate([out for _, out in part.folds])
    best, chosen = -np.inf, (COSTS[0], WIDTHS[0])
    for width in WIDTHS:
        kernel = np.exp(-width * inside)
        for cost in COSTS:
            decisions = []
            for learned, out in part.folds:
                model = SVC(kernel="precomputed", C=cost, decision_function_shape="ovo")
                model.fit(kernel[np.ix_(learned, learned)], part.labels[learned])
                decisions.append(_decisions(model, kernel[np.ix_(out, learned)]))
            values = np.concatenate(decisions)
            sigmoid = LogisticRegression(max_iter=_MOST_STEPS).fit(values, part.labels[order])
            found = _spread(sigmoid.predict_proba(values), sigmoid, part.classes)
            score = part.score(order, found)
            if score > best:
                best, chosen, calibrated = score, (cost, width), sigmoid
    cost, width = chosen
    model = SVC(kernel="precomputed", C=cost, decision_function_shape="ovo")
    model.fit(np.exp(-width * inside), part.labels)
    decided = _decisions(model, np.exp(-width * outside))
    found = _spread(calibrated.predict_proba(decided), calibrated, part.classes)
    return {"C": cost, "gamma": width / features}, found


def _distances(x: Floats, y: Floats) -> Floats:
    """Squared distances, (x, y) float64 of products in float32."""
    squares = np.square(x).sum(1)[:, None] - 2 * x @ y.T + np.square(y).sum(1)
    found: Floats = squares.clip(0).astype(np.float64)
    return found


def _decisions(model: Any, kernel: Floats) -> Floats:
    """The margin of each pair of classes; sums over a class's pairs count votes, which say less."""
    found = model.decision_function(kernel)
    return found.reshape(len(found), -1)


def _spread(probabilities: Floats, model: Any, classes: int) -> Floats:
    """Adds the classes that a model has not seen, (rows, classes) float64."""
    found = np.zeros((len(probabilities), classes))
    found[:, model.classes_] = probabilities
    return found / found.sum(1, keepdims=True)


_METHODS: dict[str, Callable[[FoldData], tuple[dict[str, Number], Floats]]] = {
    "logistic": _logistic,
    "svc": _svc,
}


def beside(
    baselines: Sequence[Baseline],
    judgements: Sequence[FoldPredictions],
    units: Sequence[FoldSplit],
    labels: Codes,
    groups: Codes,
) -> list[BaselineScores]:
    """The baselines beside a study's choice, on the development and on the outer rows.

    Args:
        baselines: Of the study.
        judgements: What the choice's models predict, a unit each.
        units: The study's.
        labels: Class codes of all rows.
        groups: Duplicate groups of all rows.
    """
    inside = HeldOut.of_units([u.validation for u in units], [of.held_out for of in judgements])
    outside = HeldOut.of_units([u.judged for u in units], [of.outer for of in judgements])

    def compared(choice: HeldOut, record: HeldOutRecord, name: str) -> dict[str, BesideBaseline]:
        _, (other, own) = stack([HeldOut.decode(record, name), choice], len(labels))
        found = gains(other, own, labels[choice.rows], groups[choice.rows])
        return {
            metric: BesideBaseline(baseline=of.single, choice=of.ensemble, interval=of.interval)
            for metric, of in found.items()
        }

    return [
        BaselineScores(
            name=TITLES[baseline.name],
            held_out=compared(inside, baseline.held_out, baseline.name),
            outer=compared(outside, baseline.outer, baseline.name),
        )
        for baseline in baselines
    ]
