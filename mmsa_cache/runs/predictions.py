"""``predictions.csv`` of a run: what it predicts of its outer rows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fuse.figures.predictions import Predictions
from mmsa_cache.errors import ModelError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what reading a file raises into a ModelError that names it."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}.", "Train the run again."
        ) from error
    except (ValueError, OverflowError, RecursionError, csv.Error) as error:
        raise ModelError(f"{path} is malformed: {error}.", "Train the run again.") from error


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """Reads the file of a run.

    Args:
        path: ``predictions.csv``.
        classes: Class names in the order of their codes and of the file's columns.

    Raises:
        ModelError: It is missing or malformed, or has a guid twice.
    """
    header = ["guid", "tag", "predicted", *(f"p_{name}" for name in classes)]
    code = {name: number for number, name in enumerate(classes)}
    guids, labels, predicted, probabilities = [], [], [], []
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        first = next(reader, [])
        if first != header:
            raise ValueError(f"expected the header {','.join(header)}, received {','.join(first)}")
        for row in reader:
            if len(row) != len(header) or row[1] not in code or row[2] not in code:
                raise ValueError(f"line {reader.line_num} is no row of {','.join(header)}")
            guids.append(row[0])
            labels.append(code[row[1]])
            predicted.append(code[row[2]])
            probabilities.append([float(p) for p in row[3:]])
            if not all(0 <= p <= 1 for p in probabilities[-1]):
                raise ValueError(f"line {reader.line_num}: a probability is not within 0 and 1")
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
