"""Classical baselines of a search: logistic regression and an RBF support vector machine.

Both read all standardised pooled vectors that the study may read. scikit-learn fits them on the
rows and folds of the trials. They are tuned inside each fold's training rows, on inner folds that
keep duplicate groups together.
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
from fuse.figures.study import BaselineComparison, BaselineScores
from fuse.models.modality import modality_of
from fuse.setting import Setting
from fuse.training.classifier import gather_batch
from mmsa_cache.data.splits import grouped_folds
from mmsa_cache.features.bank import FeatureBank

from .baseline_record import TITLES, Baseline
from .greedy import gains
from .held_out import HeldOut, HeldOutRecord, stack_held_out
from .messages import FoldPredictions, FoldSplit

Floats = NDArray[Any]
Codes = NDArray[np.int64]

INNER_FOLDS = 3
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
"""C of the logistic regression, tried from the smallest until two in a row do not improve."""
COSTS = (1.0, 2.0, 4.0, 8.0)
"""C of the support vector machine."""
WIDTHS = (0.25, 0.5, 1.0)
"""Gamma of the support vector machine, in units of 1 / features."""
MOST_ROWS = {"logistic": 20_000, "svc": 6_000}
"""Above so many rows a baseline takes longer than the trials, or too much memory."""
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
    splits: Sequence[FoldSplit],
    groups: Codes,
    classes: int,
    metric: Metric,
) -> Baseline:
    """Fits a baseline on every fold.

    Args:
        name: One of `TITLES`.
        setting: Names the vectors to read, see `fuse.search.study.StudyConfig.baseline_setting`.
        bank: Features of all rows.
        splits: The folds; all have the same outer rows.
        groups: Duplicate groups, (samples,).
        classes: Number of classes.
        metric: For tuning, and of the scores.

    Raises:
        SettingsError: A class is too rare for the inner folds.
    """
    started = time.perf_counter()
    labels = bank.labels.cpu().numpy()
    scores, tuned, held_out, outer = [], [], [], []
    for split in splits:
        rows = np.concatenate([split.train, split.validation, split.judged])
        train = len(split.train)
        values = standardise(read_vectors(bank, rows, setting), train)
        train_labels = labels[split.train]
        folds = grouped_folds(train_labels, groups[split.train], INNER_FOLDS, split.seed)
        fold = FoldData(values[:train], train_labels, values[train:], folds, classes, metric)
        parameters, probabilities = _METHODS[name](fold)
        inside, outside = np.split(probabilities, [len(split.validation)])
        scores.append(selection_score(labels[split.validation], inside).value(metric))
        tuned.append(parameters)
        held_out.append(inside)
        outer.append(outside)
    return Baseline(
        name=name,
        units=scores,
        tuned=tuned,
        seconds=round(time.perf_counter() - started, 2),
        held_out=HeldOut.average([split.validation for split in splits], held_out).encode(),
        outer=HeldOut.average([split.judged for split in splits], outer).encode(),
    )


def read_vectors(bank: FeatureBank, rows: Codes, setting: Setting) -> Floats:
    """The pooled vectors that a setting names, concatenated, (rows, features) float32; NaN where a
    row lacks their modality."""
    bank = bank.using(*setting.encoders)
    blocks = []
    for items in bank.items(rows, variants=False).split(_ROWS_AT_ONCE):
        batch = gather_batch(bank, items, setting)
        vectors = [
            batch.filled(name, torch.nan).float()
            for name in batch.vectors
            if setting.modality in ("both", modality_of(name))
        ]
        blocks.append(torch.cat(vectors, 1).cpu().numpy())
    return np.concatenate(blocks)


def standardise(values: Floats, train: int) -> Floats:
    """Scales by mean and deviation of the first rows; constant features and NaN become 0."""
    reference: Any = values[:train]
    has_nan = bool(np.isnan(values).any())
    if has_nan:
        reference = np.ma.masked_invalid(reference)
    mean, deviation = reference.mean(0), reference.std(0)
    if has_nan:  # masked where no row has the feature
        mean, deviation = mean.filled(0), deviation.filled(0)
    scaled = (values - mean) / np.where(deviation > 0, deviation, 1)
    return np.nan_to_num(scaled, copy=False, nan=0.0) if has_nan else scaled


def _logistic(fold: FoldData) -> tuple[dict[str, Number], Floats]:
    """Multinomial logistic regression; returns C and the probabilities of the other rows."""
    paths = [_regressions(fold.train[inside], fold.labels[inside]) for inside, _ in fold.folds]
    best_score, worse, best = -np.inf, 0, PENALTIES[0]
    for penalty in PENALTIES:
        models = [next(path) for path in paths]
        score = fmean(
            fold.score(out, _predict(model, fold.train[out], fold.classes))
            for model, (_, out) in zip(models, fold.folds, strict=True)
        )
        if score > best_score:
            best_score, worse, best = score, 0, penalty
        elif (worse := worse + 1) == 2:
            break
    path = zip(PENALTIES, _regressions(fold.train, fold.labels), strict=True)
    model = next(model for penalty, model in path if penalty == best)
    return {"C": best}, _predict(model, fold.others, fold.classes)


def _regressions(values: Floats, labels: Codes) -> Iterator[Any]:
    """Fits regressions of falling penalty, each from the solution of the one before."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    model = LogisticRegression(warm_start=True, tol=_TOLERANCE, max_iter=_MOST_STEPS)
    for penalty in PENALTIES:
        yield model.set_params(C=penalty).fit(values, labels)


def _svc(fold: FoldData) -> tuple[dict[str, Number], Floats]:
    """Support vectors on exp(−γ·|x − y|²). A multinomial logistic regression, fitted on the inner
    folds' held-out rows, turns their decision values into probabilities."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    features = fold.train.shape[1]
    train_distances, other_distances = (
        _distances(values, fold.train) / features for values in (fold.train, fold.others)
    )
    order = np.concatenate([out for _, out in fold.folds])
    best_score, best = -np.inf, (COSTS[0], WIDTHS[0])
    for width in WIDTHS:
        kernel = np.exp(-width * train_distances)
        for cost in COSTS:
            decisions = []
            for inside, out in fold.folds:
                model = SVC(kernel="precomputed", C=cost, decision_function_shape="ovo")
                model.fit(kernel[np.ix_(inside, inside)], fold.labels[inside])
                decisions.append(_decisions(model, kernel[np.ix_(out, inside)]))
            values = np.concatenate(decisions)
            sigmoid = LogisticRegression(max_iter=_MOST_STEPS).fit(values, fold.labels[order])
            score = fold.score(order, _predict(sigmoid, values, fold.classes))
            if score > best_score:
                best_score, best, best_sigmoid = score, (cost, width), sigmoid
    cost, width = best
    model = SVC(kernel="precomputed", C=cost, decision_function_shape="ovo")
    model.fit(np.exp(-width * train_distances), fold.labels)
    values = _decisions(model, np.exp(-width * other_distances))
    return {"C": cost, "gamma": width / features}, _predict(best_sigmoid, values, fold.classes)


def _distances(x: Floats, y: Floats) -> Floats:
    """Squared distances, (x, y) float64, computed in float32."""
    squares = np.square(x).sum(1)[:, None] - 2 * x @ y.T + np.square(y).sum(1)
    distances: Floats = squares.clip(0).astype(np.float64)
    return distances


def _decisions(model: Any, kernel: Floats) -> Floats:
    """The margin of each pair of classes. The sum over a class's pairs counts votes, which says
    less."""
    decisions = model.decision_function(kernel)
    return decisions.reshape(len(decisions), -1)


def _predict(model: Any, values: Floats, classes: int) -> Floats:
    """Probabilities of all classes, (rows, classes) float64; 0 for those that a model lacks."""
    probabilities = np.zeros((len(values), classes))
    probabilities[:, model.classes_] = model.predict_proba(values)
    return probabilities / probabilities.sum(1, keepdims=True)


_METHODS: dict[str, Callable[[FoldData], tuple[dict[str, Number], Floats]]] = {
    "logistic": _logistic,
    "svc": _svc,
}


def compare_baselines(
    baselines: Sequence[Baseline],
    predictions: Sequence[FoldPredictions],
    splits: Sequence[FoldSplit],
    labels: Codes,
    groups: Codes,
) -> list[BaselineScores]:
    """Compares the baselines with a study's choice on the development and on the outer rows.

    Args:
        baselines: Of the study.
        predictions: Of the choice's models, one a split.
        splits: The study's.
        labels: Class codes of all rows.
        groups: Duplicate groups of all rows.
    """
    held_out = HeldOut.average([s.validation for s in splits], [p.held_out for p in predictions])
    outer = HeldOut.average([s.judged for s in splits], [p.outer for p in predictions])

    def compare(choice: HeldOut, record: HeldOutRecord, name: str) -> dict[str, BaselineComparison]:
        _, (baseline, own) = stack_held_out([HeldOut.decode(record, name), choice], len(labels))
        by_metric = gains(baseline, own, labels[choice.rows], groups[choice.rows])
        return {
            metric: BaselineComparison(
                baseline=gain.single, choice=gain.ensemble, interval=gain.interval
            )
            for metric, gain in by_metric.items()
        }

    return [
        BaselineScores(
            name=TITLES[baseline.name],
            held_out=compare(held_out, baseline.held_out, baseline.name),
            outer=compare(outer, baseline.outer, baseline.name),
        )
        for baseline in baselines
    ]
