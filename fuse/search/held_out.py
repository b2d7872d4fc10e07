"""Held-out probabilities: predictions for development rows that a model did not learn from."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fuse.figures.record import Integer, Record
from mmsa_cache.errors import ModelError

MOST_VALUES = 1 << 15
"""Probabilities stored of one trial at most. Of more rows, evenly spaced ones are stored. A
thousand such trials stay far below the largest database that is read."""
_LONGEST = 1 << 18
"""Characters of a record at most."""
_SMALLEST = 2.0**-24
"""The smallest float16 above 0: a probability of 0 would have an infinite log-loss."""
_TOLERANCE = 0.02
"""Largest distance of a row's sum from 1 that rounding to float16 can cause."""


class HeldOutRecord(Record):
    """`HeldOut` as the database stores it, compressed."""

    rows: Annotated[Integer, Field(ge=1, le=MOST_VALUES)]
    classes: Annotated[Integer, Field(ge=2, le=MOST_VALUES)]
    data: Annotated[str, Field(max_length=_LONGEST)]
    """Base64 of zlib of: differences of row indices (uint32, little endian), then probabilities
    (float16, row by row)."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Class probabilities of development rows from models that did not learn from them."""

    rows: NDArray[np.int64]
    """Row indices, sorted."""
    probabilities: NDArray[np.float32]
    """(rows, classes), averaged over seeds."""

    @classmethod
    def average(
        cls, validation: Sequence[NDArray[np.int64]], probabilities: Sequence[NDArray[Any]]
    ) -> HeldOut:
        """Averages the predictions of trainings: every row of a fold has one a seed.

        Args:
            validation: The held-out rows of each training.
            probabilities: Of these rows, (rows, classes) each.
        """
        rows, inverse = np.unique(np.concatenate(validation), return_inverse=True)
        values = np.concatenate(probabilities).astype(np.float64)
        total = np.zeros((len(rows), values.shape[1]))
        np.add.at(total, inverse, values)
        mean = total / np.bincount(inverse)[:, None]
        most = max(1, MOST_VALUES // values.shape[1])
        stored = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
        return cls(rows[stored], mean[stored].astype(np.float32))

    def for_samples(self, count: int) -> NDArray[np.float64]:
        """Probabilities of all samples, (samples, classes); NaN for other rows."""
        full = np.full((count, self.probabilities.shape[1]), np.nan)
        values = self.probabilities.astype(np.float64)
        full[self.rows] = values / values.sum(1, keepdims=True)
        return full

    def encode(self) -> HeldOutRecord:
        """Encodes for the database; probabilities keep about three digits."""
        differences = np.diff(self.rows, prepend=0).astype("<u4")
        values = self.probabilities.clip(_SMALLEST, 1).astype("<f2")
        data = zlib.compress(differences.tobytes() + values.tobytes())
        rows, classes = values.shape
        return HeldOutRecord(rows=rows, classes=classes, data=base64.b64encode(data).decode())

    @classmethod
    def decode(cls, record: HeldOutRecord, of: str) -> HeldOut:
        """Decodes what `encode` wrote. Takes no more memory than the record's shape says.

        Args:
            record: What is stored.
            of: Whose probabilities these are, for the error.

        Raises:
            ModelError: They are damaged, or something else.
        """
        try:
            return cls._decode(record)
        except ValueError as error:
            raise ModelError(
                f"The held-out probabilities of {of} are damaged: {error}.",
                "Restore the database, or search again under another name.",
            ) from error

    @classmethod
    def _decode(cls, record: HeldOutRecord) -> HeldOut:
        rows, classes = record.rows, record.classes
        if rows * classes > MOST_VALUES:
            raise ValueError(f"{rows} rows of {classes} classes are too many")
        size = 4 * rows + 2 * rows * classes
        try:
            stream = zlib.decompressobj()
            data = stream.decompress(base64.b64decode(record.data, validate=True), size + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ValueError(f"they cannot be unpacked: {error}") from None
        if len(data) != size or not stream.eof:
            raise ValueError(f"{rows} rows of {classes} classes were expected")
        differences = np.frombuffer(data, "<u4", rows).astype(np.int64)
        values = np.frombuffer(data, "<f2", rows * classes, 4 * rows).astype(np.float32)
        values = values.reshape(rows, classes)
        sums = values.sum(1, keepdims=True)
        is_valid = differences[1:].all() and (values >= 0).all()
        if not is_valid or not (abs(sums - 1) < _TOLERANCE).all():
            raise ValueError("they are no probabilities of rows in order")
        return cls(differences.cumsum(), values / sums)


def stack_held_out(
    held_out: Sequence[HeldOut], samples: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Stacks the held-out probabilities of several trials of one study.

    Args:
        held_out: At least one.
        samples: Rows of the data: indices are below.

    Returns:
        The row indices, sorted, and the probabilities, (trials, rows, classes).

    Raises:
        ModelError: They are not of one study on this data.
    """
    first = held_out[0]
    same_rows = all(
        np.array_equal(other.rows, first.rows)
        and other.probabilities.shape == first.probabilities.shape
        for other in held_out
    )
    if not same_rows or first.rows[-1] >= samples:
        raise ModelError(
            "The held-out probabilities of the study's trials are not of the same rows.",
            "Search again under another name.",
        )
    return first.rows, np.stack([other.probabilities for other in held_out])
