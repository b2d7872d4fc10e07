"""Describes how a split differs from what was extracted."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from .table import IntArray, SampleTable

_SHOWN = 5


def describe_changes(stored: SampleTable, current: SampleTable) -> list[str]:
    """Describes the differences between two versions of a split; rows are matched by guid.

    Args:
        stored: The split in the store.
        current: The split in the data folder.

    Returns:
        A line for each kind of change with the number of rows and their first guids; none where
        both are equal.
    """
    stored_rows = _rows_by_guid(stored, current)
    removed = np.flatnonzero(_rows_by_guid(current, stored) < 0)
    current_rows = np.flatnonzero(stored_rows >= 0)
    stored_rows = stored_rows[current_rows]

    def differ(stored_values: NDArray[np.generic], current_values: NDArray[np.generic]) -> IntArray:
        changed = stored_values[stored_rows] != current_values[current_rows]
        return current_rows[changed.any(1) if changed.ndim > 1 else changed]

    texts = differ(stored.digests("text"), current.digests("text"))
    pictures = differ(stored.digests("image"), current.digests("image"))
    changes = [
        ("added", current, np.setdiff1d(np.arange(len(current)), current_rows)),
        ("removed", stored, removed),
        ("relabelled", current, differ(stored.labels, current.labels)),
        ("with another text", current, texts),
        ("with another picture", current, pictures),
    ]
    lines = [
        f"{len(rows)} row{'s' * (len(rows) > 1)} {change}: {_first_guids(table, rows)}"
        for change, table, rows in changes
        if len(rows)
    ]
    moved = current_rows[1:][np.diff(stored_rows) < 0]
    if len(moved):
        lines.append(f"the rows are in another order from {_first_guids(current, moved[:1])} on")
    return lines


def _rows_by_guid(table: SampleTable, other: SampleTable) -> IntArray:
    """Row in ``table`` of each guid of ``other``, −1 where it is missing."""
    values = table.table["guid"].combine_chunks()
    rows = pc.index_in(other.table["guid"], values)
    return np.asarray(pc.fill_null(rows, -1).to_numpy(), np.int64)


def _first_guids(table: SampleTable, rows: IntArray) -> str:
    guids = table.take(rows[:_SHOWN]).guids
    return ", ".join(guids) + (", …" if len(rows) > _SHOWN else "")
