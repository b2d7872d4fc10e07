"""``mmsa evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import DECIDE, Decide
from fuse.figures.halves import Presence, rows_by_presence
from fuse.figures.intervals import score_decisions, score_intervals
from fuse.figures.metrics import probability_score
from fuse.figures.records import Decision, ScoreIntervals, Scores, absent_notes
from mmsa_cache.console import say
from mmsa_cache.data.protocol import JOINED
from mmsa_cache.data.splits import IntArray, learned_rows
from mmsa_cache.data.table import UNKNOWN_LABEL, SampleTable, concatenate_tables
from mmsa_cache.errors import DataError, MmsaError, SettingsError
from mmsa_cache.json_value import JsonObject
from mmsa_cache.names import SPLITS, check_split
from mmsa_cache.runs.folder import RunFolder

from ..session.path_policy import NO_OVERRIDES, RunOverrides
from ..session.samples import splits_of
from .labelled import LabelledRows, match_labels
from .predictor import Predictor, load_predictor

_SPLIT_ORDER = ("val", "test", "train")
"""Order in which splits are scored: what was learned from comes last."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a run on the rows of a label file, or of a split."""

    run: str
    split: str | None
    """None for the rows of a label file."""
    rule: Decide
    """Decision rule of the scores."""
    rows_seen_in_training: int
    """Scores of such rows mean little."""
    rows_with_duplicate_in_training: int
    """Rows that were not seen, but duplicate one that was."""
    notes: list[str]
    scores: Scores
    decisions: dict[Decide, Decision]
    """By each decision rule."""
    intervals: ScoreIntervals
    without_duplicates: Scores | None
    """Scores of all other rows; None if there are none."""
    halves: dict[Presence, Scores]
    """Scores by the modalities of the rows; empty where all rows have both."""

    def as_json(self) -> JsonObject:
        """The scores, with the other values."""
        without = self.without_duplicates
        return {
            "run": self.run,
            **({} if self.split is None else {"split": self.split}),
            "decide": self.rule,
            "rows_seen_in_training": self.rows_seen_in_training,
            "rows_with_duplicate_in_training": self.rows_with_duplicate_in_training,
            "notes": self.notes,
            **self.scores.as_json(),
            "decisions": {rule: scores.as_json() for rule, scores in self.decisions.items()},
            "intervals": self.intervals.as_json(),
            "without_duplicates": None if without is None else without.as_json(),
            "halves": {kind: scores.as_json() for kind, scores in self.halves.items()},
        }


def evaluate(
    name: str,
    labels: Path | None = None,
    overrides: RunOverrides = NO_OVERRIDES,
    decide: Decide | None = None,
    split: str | None = None,
) -> list[Evaluation]:
    """Scores a run's predictions on the rows of a label file, or of every split with labels.

    Args:
        name: Name or folder of a run.
        labels: A file with labels; default: the labels of the data.
        overrides: Replace settings of the run.
        decide: Decision rule; default: the run's.
        split: Only rows of this split are scored.

    Raises:
        SettingsError: There is no such split.
        ModelError: The run cannot be loaded.
        DataError: A row has no label, or no post in the data; or no split has labels.
    """
    if split is not None:
        check_split(split)
    run = RunFolder.find(name)
    model = load_predictor(name, overrides, decide)
    required = {split} if split is not None else set()
    if not required and labels is None:
        required = splits_of(model.session.settings, model.session.store)
    posts = _read_splits(model, required)
    if labels is not None:
        allowed = {key: samples for key, samples in posts.items() if split in (None, key)}
        rows = match_labels(labels, run.record.classes, allowed, model.session.settings)
        return [_score_rows(run, name, model, posts, rows, None)]
    evaluations = []
    for key in (key for key in _SPLIT_ORDER if key in posts and split in (None, key)):
        codes = _codes(model, key, posts[key])
        indices = np.flatnonzero(codes != UNKNOWN_LABEL)
        if not len(indices):
            if split is None:
                continue
            raise DataError(f"No row of the split {split} has a label.", "Give --labels FILE.")
        if len(indices) < len(codes):
            say(f"Note: {len(codes) - len(indices)} rows of {key} have no label: not scored.")
        rows = LabelledRows(np.full(len(indices), SPLITS.index(key)), indices, codes[indices])
        evaluations.append(_score_rows(run, name, model, posts, rows, key))
    if not evaluations:
        raise DataError("No split of the data has labels.", "Give --labels FILE.")
    return evaluations


def _read_splits(model: Predictor, required: Collection[str]) -> dict[str, SampleTable]:
    """Reads the splits; those that cannot be read are left out unless they are required."""
    splits: dict[str, SampleTable] = {}
    first_error: MmsaError | None = None
    for key in SPLITS:
        try:
            splits[key] = model.session.samples(key)
        except (DataError, SettingsError) as error:
            if key in required:
                raise
            first_error = first_error or error
    if not splits and first_error is not None:
        raise first_error
    return splits


def _codes(model: Predictor, split: str, samples: SampleTable) -> IntArray:
    """Labels of samples as codes of the run's classes; a store may order its classes otherwise."""
    stored, codes = model.session.store.split(split), samples.labels
    if stored is None or stored[1] is not samples or [*stored[0].classes] == model.classes:
        return codes
    names = np.array([*stored[0].classes, ""])  # the last stands for no label
    unknown = sorted({*names[codes].tolist()} - {*model.classes, ""})
    if unknown:
        raise DataError(
            f"{model.session.store.root} has the classes {', '.join(unknown)} in {split}; the run "
            f"tells {', '.join(model.classes)} apart.",
            "Give --labels FILE.",
        )
    known = {name: code for code, name in enumerate(model.classes)} | {"": UNKNOWN_LABEL}
    return np.array([known[name] for name in names[codes].tolist()], np.int64)


def _score_rows(
    run: RunFolder,
    name: str,
    model: Predictor,
    posts: Mapping[str, SampleTable],
    rows: LabelledRows,
    split: str | None,
) -> Evaluation:
    classes, truth = run.record.classes, rows.labels
    probabilities = _gather(
        rows, lambda key: np.array([row for _, row in model.predict_split(key)], np.float64)
    )
    seen, known, groups = _training_relation(run, model, posts, rows)
    duplicates = int((known & ~seen).sum())
    described = f"these {len(truth)} rows" + (f" of {split}" if split else "")
    if seen.any():
        say(f"Note: {seen.sum()} of {described} took part in training.")
    if duplicates:
        say(f"Note: {duplicates} of {described} have a duplicate that took part in training.")
    calibration = model.ensemble.calibration
    decided = {rule: calibration.decide(probabilities, rule) for rule in DECIDE}
    predicted = decided[model.rule]

    def score(rows: NDArray[np.bool_]) -> Scores:
        return probability_score(
            truth[rows], probabilities[rows], classes, predicted=predicted[rows]
        )

    scores = score(np.ones_like(known))
    present = _gather(rows, lambda key: posts[key].present)
    return Evaluation(
        name,
        split,
        model.rule,
        int(seen.sum()),
        duplicates,
        model.notes + absent_notes(scores.absent),
        scores,
        score_decisions(truth, decided, len(classes), groups=groups),
        score_intervals(truth, probabilities, classes, predicted=predicted, groups=groups),
        None if known.all() else score(~known),
        {kind: score(mask) for kind, mask in rows_by_presence(present).items()},
    )


def _gather(rows: LabelledRows, values_of: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
    """Values of rows from the arrays of their splits, (rows, …)."""
    numbers, order = np.unique(rows.splits), np.argsort(rows.splits, kind="stable")
    values = [values_of(SPLITS[n])[rows.indices[rows.splits == n]] for n in numbers.tolist()]
    return np.concatenate(values)[np.argsort(order)]


def _training_relation(
    run: RunFolder, model: Predictor, posts: Mapping[str, SampleTable], rows: LabelledRows
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], IntArray]:
    """Relates rows to those that a run has learned from.

    Returns:
        Whether each row was learned from; whether it or a duplicate was; and the numbers of the
        duplicate groups, (rows,) each.
    """
    train = posts.get("train", SampleTable.from_samples([]))
    # The rows to score follow those of train in one table.
    tables, indices, total = [train], np.array(rows.indices), len(train)
    for number in np.unique(rows.splits).tolist():
        if SPLITS[number] != "train":
            in_split = rows.splits == number
            indices[in_split] = total + np.arange(in_split.sum())
            tables.append(posts[SPLITS[number]].take(rows.indices[in_split]))
            total += int(in_split.sum())
    learned = np.zeros(total, np.bool_)
    learned[: len(train)] = _learned_mask(run, model, posts)
    groups = concatenate_tables(tables).groups()
    own = groups[indices]
    return learned[indices], np.isin(own, groups[learned]), own


def _learned_mask(
    run: RunFolder, model: Predictor, posts: Mapping[str, SampleTable]
) -> NDArray[np.bool_]:
    """Whether a run has learned from each row of train, (rows of train,).

    True for all rows where that is unknown: an export does not keep which rows judged it.
    """
    protocol, session = run.record.protocol, model.session
    guids = posts["train"].guids if "train" in posts else []
    if protocol.split != JOINED:
        if run.record.origin is None:
            return np.ones(len(guids), np.bool_)
        judged = np.isin(guids, run.predictions.guids)
        return learned_rows(protocol.outer, judged, session.groups()) if guids else judged
    if "val" not in posts:
        return np.ones(len(guids), np.bool_)
    judged = np.arange(len(guids) + len(posts["val"])) >= len(guids)
    return learned_rows(protocol.outer, judged, session.groups(JOINED))[: len(guids)]
