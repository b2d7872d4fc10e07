"""``predictions.csv`` of a run: its predictions of the outer rows."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fuse.figures.calibration import DECIDE
from fuse.figures.predictions import Predictions
from mmsa_cache.escaping import csv_text, unescape_cell

_RULES = [f"by_{rule}" for rule in DECIDE]


def _header(classes: Sequence[str], is_older: bool = False) -> list[str]:
    own = [] if is_older else [*_RULES, "group"]
    return ["guid", "tag", "predicted", *own, *(f"p_{name}" for name in classes)]


def format_predictions(predictions: Predictions, classes: Sequence[str]) -> str:
    """One line for each row, with probabilities in full precision.

    ``predicted`` is the class by the run's decision rule, ``by_RULE`` that by each rule. Rows of
    one ``group`` are duplicates of a post.
    """
    codes = [predictions.labels, predictions.predicted]
    numbers = []
    if predictions.groups is not None:
        codes += [predictions.decided[rule] for rule in DECIDE]
        numbers = [predictions.groups]
    rows = [_header(classes, is_older=not numbers)]
    for row, (guid, probabilities) in enumerate(
        zip(predictions.guids, predictions.probabilities.tolist(), strict=True)
    ):
        names = [classes[column[row]] for column in codes]
        groups = [str(column[row]) for column in numbers]
        rows.append([guid, *names, *groups, *map(repr, probabilities)])
    return csv_text(rows)


def parse_predictions(text: str, classes: Sequence[str]) -> Predictions:
    """Reads the content of the file; older ones have neither ``by_RULE`` nor ``group``.

    Args:
        text: The content.
        classes: Class names in the order of their codes and of the file's columns.

    Raises:
        ValueError: It is malformed, or has a guid twice.
    """
    code = {name: number for number, name in enumerate(classes)}
    guids, codes, groups, probabilities = [], [], [], []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = _header(classes)
        first = next(reader, [])
        is_older = first == _header(classes, is_older=True)
        if first != header and not is_older:
            raise ValueError(f"expected the header {','.join(header)}, received {','.join(first)}")
        named = 3 if is_older else 3 + len(DECIDE)
        for cells in reader:
            row = [*map(unescape_cell, cells)]
            if len(row) != len(first) or not {*row[1:named]} <= code.keys():
                raise ValueError(f"line {reader.line_num} is no row of {','.join(first)}")
            guids.append(row[0])
            codes.append([code[name] for name in row[1:named]])
            groups.append(0 if is_older else int(row[named]))
            probabilities.append([float(p) for p in row[-len(classes) :]])
            if not all(0 <= p <= 1 for p in probabilities[-1]):
                raise ValueError(f"line {reader.line_num}: a probability is not within 0 and 1")
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if not guids:
        raise ValueError("it has no rows")
    if len(set(guids)) < len(guids):
        twice = next(guid for guid, rows in Counter(guids).items() if rows > 1)
        raise ValueError(f"the guid {twice!r} is there twice")
    labels, predicted, *decided = np.array(codes, np.int64).T
    return Predictions(
        guids,
        labels,
        predicted,
        np.array(probabilities, np.float64),
        None if is_older else np.array(groups, np.int64),
        {} if is_older else dict(zip(DECIDE, decided, strict=True)),
    )
