"""``mmsa evaluate``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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
from .labelled import Labelled, match
from .predictor import Predictor, load_model

_ORDER = ("val", "test", "train")
"""Of the splits that are scored: what was learned from comes last."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a run on the rows of a label file, or of a split."""

    run: str
    split: str | None
    """None where the rows are those of a label file."""
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
    halves: dict[Presence, Scores]
    """Apart by what the rows have; none where all are whole posts."""

    def as_json(self) -> JsonObject:
        """The scores beside the other values."""
        without = self.without_duplicates
        return {
            "run": self.run,
            **({} if self.split is None else {"split": self.split}),
            "decide": self.rule,
            "rows_seen_in_training": self.rows_seen_in_training,
            "rows_with_duplicate_in_training": self.rows_with_duplicate_in_training,
            "notes": self.notes,
            **self.scores.as_json(),
            "decisions": {rule: of.as_json() for rule, of in self.decisions.items()},
            "intervals": self.intervals.as_json(),
            "without_duplicates": None if without is None else without.as_json(),
            "halves": {kind: of.as_json() for kind, of in self.halves.items()},
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
        labels: A file with labels; None: those of the data.
        overrides: What is said in the place of the run's settings.
        decide: Decision rule; default: the run's.
        split: Only its rows.

    Raises:
        SettingsError: There is no such split.
        ModelError: The run cannot be loaded.
        DataError: A row has no label, or no pair in the data; or no split has labels.
    """
    if split is not None:
        check_split(split)
    run = RunFolder.find(name)
    model = load_model(name, **asdict(overrides), decide=decide)
    needed = {split} if split is not None else set()
    if not needed and labels is None:
        needed = splits_of(model.session.settings, model.session.store)
    posts = _posts(model, needed)
    if labels is not None:
        chosen = {key: of for key, of in posts.items() if split in (None, key)}
        rows = match(labels, run.record.classes, chosen, model.session.settings)
        return [_evaluated(run, name, model, posts, rows, None)]
    found = []
    for key in (key for key in _ORDER if key in posts and split in (None, key)):
        codes = _codes(model, key, posts[key])
        places = np.flatnonzero(codes != UNKNOWN_LABEL)
        if not len(places):
            if split is None:
                continue
            raise DataError(f"No row of the split {split} has a label.", "Give --labels FILE.")
        if len(places) < len(codes):
            say(f"Note: {len(codes) - len(places)} rows of {key} have no label: not scored.")
        rows = Labelled(np.full(len(places), SPLITS.index(key)), places, codes[places])
        found.append(_evaluated(run, name, model, posts, rows, key))
    if not found:
        raise DataError("No split of the data has labels.", "Give --labels FILE.")
    return found


def _posts(model: Predictor, needed: Collection[str]) -> dict[str, SampleTable]:
    """The splits that can be read; others are not there, unless they are needed."""
    found: dict[str, SampleTable] = {}
    problem: MmsaError | None = None
    for key in SPLITS:
        try:
            found[key] = model.session.samples(key)
        except (DataError, SettingsError) as error:
            if key in needed:
                raise
            problem = problem or error
    if not found and problem is not None:
        raise problem
    return found


def _codes(model: Predictor, split: str, samples: SampleTable) -> IntArray:
    """Labels of samples as codes of the run's classes, which a store may have in another order."""
    stored, codes = model.session.store.split(split), samples.labels
    if stored is None or stored[1] is not samples or [*stored[0].classes] == model.classes:
        return codes
    names = np.array([*stored[0].classes, ""])  # the last is of those without a label
    unknown = sorted({*names[codes].tolist()} - {*model.classes, ""})
    if unknown:
        raise DataError(
            f"{model.session.store.root} has the classes {', '.join(unknown)} in {split}; the run "
            f"tells {', '.join(model.classes)} apart.",
            "Give --labels FILE.",
        )
    known = {name: code for code, name in enumerate(model.classes)} | {"": UNKNOWN_LABEL}
    return np.array([known[name] for name in names[codes].tolist()], np.int64)


def _evaluated(
    run: RunFolder,
    name: str,
    model: Predictor,
    posts: Mapping[str, SampleTable],
    rows: Labelled,
    split: str | None,
) -> Evaluation:
    classes, truth = run.record.classes, rows.labels
    probabilities = _probabilities(model, rows, len(classes))
    seen, known, groups = _relation(run, model, posts, rows)
    twins = int((known & ~seen).sum())
    of = f"these {len(truth)} rows" + (f" of {split}" if split else "")
    if seen.any():
        say(f"Note: {seen.sum()} of {of} took part in training.")
    if twins:
        say(f"Note: {twins} of {of} have a duplicate that took part in training.")
    calibration = model.ensemble.calibration
    decided = {rule: calibration.decide(probabilities, rule) for rule in DECIDE}
    predicted = decided[model.rule]

    def scored(rows: NDArray[np.bool_]) -> Scores:
        return probability_score(
            truth[rows], probabilities[rows], classes, predicted=predicted[rows]
        )

    scores = scored(np.ones_like(known))
    return Evaluation(
        name,
        split,
        model.rule,
        int(seen.sum()),
        twins,
        model.notes + absent_notes(scores.absent),
        scores,
        score_decisions(truth, decided, len(classes), groups=groups),
        score_intervals(truth, probabilities, classes, predicted=predicted, groups=groups),
        None if known.all() else scored(~known),
        {kind: scored(here) for kind, here in rows_by_presence(_present(posts, rows)).items()},
    )


def _probabilities(model: Predictor, rows: Labelled, classes: int) -> NDArray[np.float64]:
    """(rows, classes)"""
    found = np.empty((len(rows.labels), classes))
    for number in np.unique(rows.splits).tolist():
        of_split = rows.splits == number
        predicted = np.array([p for _, p in model.predict_split(SPLITS[number])])
        found[of_split] = predicted[rows.places[of_split]]
    return found


def _present(posts: Mapping[str, SampleTable], rows: Labelled) -> NDArray[np.bool_]:
    """Whether each row has a text, and a picture, (rows, 2)."""
    found = np.empty((len(rows.labels), 2), np.bool_)
    for number in np.unique(rows.splits).tolist():
        of_split = rows.splits == number
        found[of_split] = posts[SPLITS[number]].present[rows.places[of_split]]
    return found


def _relation(
    run: RunFolder, model: Predictor, posts: Mapping[str, SampleTable], rows: Labelled
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], IntArray]:
    """Whether a run has learned from each row, or from one that shows its post.

    Returns:
        Two boolean arrays, and the numbers of the duplicate groups, (rows,).
    """
    train = posts.get("train", SampleTable.from_samples([]))
    tables, of, first = [train], np.array(rows.places), len(train)
    for number in np.unique(rows.splits).tolist():
        if SPLITS[number] != "train":
            of_split = rows.splits == number
            of[of_split] = first + np.arange(of_split.sum())
            tables.append(posts[SPLITS[number]].take(rows.places[of_split]))
            first += int(of_split.sum())
    learned = np.zeros(first, np.bool_)
    learned[: len(train)] = _learned(run, model, posts)
    groups = concatenate_tables(tables).groups()
    return learned[of], np.isin(groups[of], groups[learned]), groups[of]


def _learned(
    run: RunFolder, model: Predictor, posts: Mapping[str, SampleTable]
) -> NDArray[np.bool_]:
    """Whether a run has learned from each row of train; all, where that cannot be told.

    An export does not keep which rows judged it.
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
