"""``mmsa evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import DECIDE, Decide
from fuse.figures.intervals import decisions, intervals
from fuse.figures.metrics import probability_score
from fuse.figures.records import Decision, ScoreIntervals, Scores
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.layouts.listing import LabelRow
from mmsa_cache.data.layouts.report import read_labels
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import duplicate_groups, learned_rows
from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLITS
from mmsa_cache.runs.folder import RunFolder

from .outside import AS_IN_THE_RUN, Given
from .predictor import Predictor, load_model


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a run on the rows of a label file."""

    run: str
    rule: Decide
    """Decision rule of the scores."""
    rows_seen_in_training: int
    """Figures from such rows mean little."""
    rows_with_duplicate_in_training: int
    """Rows that were not seen, but show the same post as one that was."""
    notes: list[str]
    scores: Scores
    decisions: dict[Decide, Decision]
    """By each decision rule."""
    intervals: ScoreIntervals
    without_duplicates: Scores | None
    """Of the other rows; None where there are none."""

    def as_json(self) -> dict[str, Any]:
        """The scores beside the other values."""
        without = self.without_duplicates
        return {
            "run": self.run,
            "decide": self.rule,
            "rows_seen_in_training": self.rows_seen_in_training,
            "rows_with_duplicate_in_training": self.rows_with_duplicate_in_training,
            "notes": self.notes,
            **self.scores.as_json(),
            "decisions": {rule: of.as_json() for rule, of in self.decisions.items()},
            "intervals": self.intervals.as_json(),
            "without_duplicates": None if without is None else without.as_json(),
        }


def evaluate(
    name: str, labels: Path, given: Given = AS_IN_THE_RUN, decide: Decide | None = None
) -> Evaluation:
    """Scores a run's predictions on the rows of a label file.

    Args:
        name: Name or folder of a run.
        labels: A label file.
        given: What is said in the place of the run's settings.
        decide: Decision rule; default: the run's.

    Raises:
        ModelError: The run cannot be loaded.
        DataError: A row has no label, or no pair in the data.
    """
    run = RunFolder.find(name)
    classes = run.record.classes
    rows = _labelled(labels, classes)
    model = load_model(name, **asdict(given), decide=decide)
    posts, found = _predicted(model, {row.guid for row in rows})
    rows = _judged(rows, found, labels, model.session.settings)
    truth = np.array([row.label for row in rows], np.int64)
    probabilities = np.array([found[row.guid] for row in rows])
    every = {guid: sample for split in SPLITS for guid, sample in posts[split].items()}
    seen, known, groups = _relation(run, posts["train"], [every[row.guid] for row in rows])
    twins = int((known & ~seen).sum())
    if seen.any():
        say(f"Note: {seen.sum()} of these {len(rows)} rows took part in training.")
    if twins:
        say(f"Note: {twins} of these {len(rows)} rows have a duplicate that took part in training.")
    calibration = model.ensemble.calibration
    decided = {rule: calibration.decide(probabilities, rule) for rule in DECIDE}
    predicted = decided[model.rule]

    def scored(rows: NDArray[np.bool_]) -> Scores:
        return probability_score(
            truth[rows], probabilities[rows], classes, predicted=predicted[rows]
        )

    return Evaluation(
        name,
        model.rule,
        int(seen.sum()),
        twins,
        model.notes,
        scored(np.ones_like(known)),
        decisions(truth, decided, len(classes), groups=groups),
        intervals(truth, probabilities, classes, predicted=predicted, groups=groups),
        None if known.all() else scored(~known),
    )


def _labelled(labels: Path, classes: Sequence[str]) -> list[LabelRow]:
    rows = read_labels(labels, classes=tuple(classes))
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    return rows


def _predicted(
    model: Predictor, wanted: set[str]
) -> tuple[dict[str, dict[str, Sample]], dict[str, list[float]]]:
    """The posts of each split by guid, and the probabilities of splits with a wanted one."""
    posts: dict[str, dict[str, Sample]] = {split: {} for split in SPLITS}
    found: dict[str, list[float]] = {}
    for split in SPLITS:
        try:
            posts[split] = {sample.guid: sample for sample in model.session.samples(split)}
        except DataError:
            continue
        if wanted & posts[split].keys():
            found |= dict(model.predict_split(split))
    return posts, found


def _judged(
    rows: list[LabelRow], found: dict[str, list[float]], labels: Path, settings: Settings
) -> list[LabelRow]:
    """The rows that have a prediction: those that an extraction set aside have none."""
    set_aside = {
        guid for split in SPLITS for guid, *_ in aside.read(settings.cache.dir, split).identities
    }
    missing = sorted({row.guid for row in rows} - found.keys() - set_aside)
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    judged = [row for row in rows if row.guid in found]
    if not judged:
        raise DataError(f"{labels}: every row was set aside when features were extracted.")
    if len(judged) < len(rows):
        say(f"Note: {len(rows) - len(judged)} rows are not scored: they were set aside.")
    return judged


def _relation(
    run: RunFolder, train: dict[str, Sample], rows: Sequence[Sample]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Whether a run has learned from each row, or from one that shows its post.

    Args:
        run: The run.
        train: Samples of its training split, by guid.
        rows: The rows.

    Returns:
        Two boolean arrays, and the numbers of the duplicate groups, (rows,).
    """
    judged = set(run.predictions.guids)
    training = list(train.values())
    every = [*training, *(sample for sample in rows if sample.guid not in train)]
    groups = duplicate_groups(every)
    learned = np.zeros(len(every), np.bool_)
    learned[: len(training)] = learned_rows(
        run.record.protocol.outer,
        np.array([sample.guid in judged for sample in training], np.bool_),
        duplicate_groups(training),
    )
    place = {sample.guid: row for row, sample in enumerate(every)}
    of = np.array([place[sample.guid] for sample in rows], np.int64)
    return learned[of], np.isin(groups[of], groups[learned]), groups[of]
