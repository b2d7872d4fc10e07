"""What changed in the data since its features were extracted, in words."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from .table import IntArray, SampleTable

_SHOWN = 5


def describe_changes(stored: SampleTable, found: SampleTable) -> list[str]:
    """Says what changed; rows are the same ones where their guids are.

    Args:
        stored: A split as it is stored.
        found: The split as the data folder has it.

    Returns:
        A line a kind of change, with the number of its rows and the first of their guids; none
        where both are equal.
    """
    then = _places(stored, found)
    removed = np.flatnonzero(_places(found, stored) < 0)
    here = np.flatnonzero(then >= 0)
    then = then[here]

    def differ(of_stored: NDArray[np.generic], of_found: NDArray[np.generic]) -> IntArray:
        changed = of_stored[then] != of_found[here]
        return here[changed.any(1) if changed.ndim > 1 else changed]

    kinds = [
        ("added", found, np.setdiff1d(np.arange(len(found)), here)),
        ("removed", stored, removed),
        ("relabelled", found, differ(stored.labels, found.labels)),
        ("with another text", found, differ(stored.digests("text"), found.digests("text"))),
        ("with another picture", found, differ(stored.digests("image"), found.digests("image"))),
    ]
    lines = [f"{_count(rows)} {what}: {_some(of, rows)}" for what, of, rows in kinds if len(rows)]
    moved = here[1:][np.diff(then) < 0]
    if len(moved):
        lines.append(f"the rows are in another order from {_some(found, moved[:1])} on")
    return lines


def _places(table: SampleTable, wanted: SampleTable) -> IntArray:
    """Where a table has each guid of another one, −1 where it has not."""
    values = table.table["guid"].combine_chunks()
    places = pc.index_in(wanted.table["guid"], values)
    return np.asarray(pc.fill_null(places, -1).to_numpy(), np.int64)


def _count(rows: IntArray) -> str:
    return "1 row" if len(rows) == 1 else f"{len(rows)} rows"


def _some(table: SampleTable, rows: IntArray) -> str:
    shown = table.take(rows[:_SHOWN]).guids
    return ", ".join(shown) + (", …" if len(rows) > _SHOWN else "")
