"""``mmsa evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.intervals import intervals
from fuse.figures.metrics import probability_score
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data import aside
from mmsa_cache.data.layouts.report import read_labels
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import duplicate_groups, learned_rows
from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLITS
from mmsa_cache.runs.directory import find_run, read_config
from mmsa_cache.runs.predictions import read_predictions

from .predict import classes_of_run, load_run
from .samples import take_in


def evaluate(run: str, labels: Path, device: str | None) -> dict[str, Any]:
    """Scores a run's predictions on the rows of a label file.

    Rows that the run has seen while training are counted, since figures from them mean little, and
    so are those that show the same post as such a row; ``without_duplicates`` is the score of the
    others, None where there are none.

    Raises:
        DataError: A row has no label, or no pair in the data.
    """
    classes = classes_of_run(run)
    rows = read_labels(labels, classes=tuple(classes))
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    model = load_run(run, device)
    found: dict[str, list[float]] = {}
    posts: dict[str, Sample] = {}
    training: list[Sample] = []
    wanted = {row.guid for row in rows}
    for split in ("train", "test"):
        try:
            samples = take_in(model.settings, split)[0]
        except DataError:
            continue
        if split == "train":
            training = samples
        posts |= {sample.guid: sample for sample in samples}
        if wanted & {sample.guid for sample in samples}:
            found |= dict(model.predict_split(split))
    missing = sorted(wanted - found.keys() - _set_aside(model.settings))
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    judged = [row for row in rows if row.guid in found]
    if not judged:
        raise DataError(f"{labels}: every row was set aside when features were extracted.")
    if len(judged) < len(rows):
        say(f"Note: {len(rows) - len(judged)} rows are not scored: they were set aside.")
    rows = judged
    truth = np.array([row.label for row in rows], np.int64)
    probabilities = np.array([found[row.guid] for row in rows])
    seen, known = _relation(find_run(run), training, [posts[row.guid] for row in rows])
    twins = int((known & ~seen).sum())
    if seen.any():
        say(f"Note: {seen.sum()} of these {len(rows)} rows took part in training.")
    if twins:
        say(f"Note: {twins} of these {len(rows)} rows have a duplicate that took part in training.")
    return {
        "run": run,
        "rows_seen_in_training": int(seen.sum()),
        "rows_with_duplicate_in_training": twins,
        "notes": model.notes,
        **probability_score(truth, probabilities, classes).as_json(),
        "intervals": intervals(truth, probabilities, classes).as_json(),
        "without_duplicates": (
            None
            if known.all()
            else probability_score(truth[~known], probabilities[~known], classes).as_json()
        ),
    }


def _relation(
    folder: Path, training: Sequence[Sample], rows: Sequence[Sample]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a run has learned from each row, and whether it has from one that shows its post.

    Args:
        folder: The run.
        training: Samples of its training split.
        rows: The rows.

    Returns:
        Two boolean arrays, (rows,).
    """
    config = read_config(folder)
    judged = set(read_predictions(folder / "predictions.csv", config["classes"]).guids)
    inside = {sample.guid for sample in training}
    every = [*training, *(sample for sample in rows if sample.guid not in inside)]
    groups = duplicate_groups(every)
    learned = np.zeros(len(every), np.bool_)
    learned[: len(training)] = learned_rows(
        config["outer"],
        np.array([sample.guid in judged for sample in training], np.bool_),
        duplicate_groups(training),
    )
    place = {sample.guid: row for row, sample in enumerate(every)}
    of = np.array([place[sample.guid] for sample in rows], np.int64)
    return learned[of], np.isin(groups[of], groups[learned])


def _set_aside(settings: Settings) -> set[str]:
    """Names of the rows that extractions set aside."""
    return {
        guid for split in SPLITS for guid, *_ in aside.read(settings.cache.dir, split).identities
    }
