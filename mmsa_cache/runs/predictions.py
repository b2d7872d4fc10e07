"""``predictions.csv`` of a run: what it predicts of its outer rows."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fuse.figures.predictions import Predictions
from mmsa_cache.shown import csv_text, from_cell


def _header(classes: Sequence[str]) -> list[str]:
    return ["guid", "tag", "predicted", *(f"p_{name}" for name in classes)]


def format_predictions(predictions: Predictions, classes: Sequence[str]) -> str:
    """A line a row; probabilities are rounded to six decimals."""
    rows: list[list[str]] = [_header(classes)]
    for guid, label, predicted, row in zip(
        predictions.guids,
        predictions.labels.tolist(),
        predictions.predicted.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    ):
        rows.append([guid, classes[label], classes[predicted], *(f"{p:.6f}" for p in row)])
    return csv_text(rows)


def parse_predictions(text: str, classes: Sequence[str]) -> Predictions:
    """Reads the content of the file.

    Args:
        text: The content.
        classes: Class names in the order of their codes and of the file's columns.

    Raises:
        ValueError: It is malformed, or has a guid twice.
    """
    header = _header(classes)
    code = {name: number for number, name in enumerate(classes)}
    guids, labels, predicted, probabilities = [], [], [], []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        first = next(reader, [])
        if first != header:
            raise ValueError(f"expected the header {','.join(header)}, received {','.join(first)}")
        for cells in reader:
            row = [*map(from_cell, cells)]
            if len(row) != len(header) or row[1] not in code or row[2] not in code:
                raise ValueError(f"line {reader.line_num} is no row of {','.join(header)}")
            guids.append(row[0])
            labels.append(code[row[1]])
            predicted.append(code[row[2]])
            probabilities.append([float(p) for p in row[3:]])
            if not all(0 <= p <= 1 for p in probabilities[-1]):
                raise ValueError(f"line {reader.line_num}: a probability is not within 0 and 1")
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if not guids:
        raise ValueError("it has no rows")
    if len(set(guids)) < len(guids):
        twice = next(guid for guid, rows in Counter(guids).items() if rows > 1)
        raise ValueError(f"the guid {twice!r} is there twice")
    return Predictions(
        guids,
        np.array(labels, np.int64),
        np.array(predicted, np.int64),
        np.array(probabilities, np.float64),
    )
