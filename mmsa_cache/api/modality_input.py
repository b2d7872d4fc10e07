"""Features from texts, pictures or arrays of one modality."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils import check_array

from mmsa_cache.errors import DataError
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.keys import KEY_BYTES
from mmsa_cache.store.schema import Shard

POST = (str, os.PathLike, Image.Image)
"""Types of a text, of the path of a picture, and of a picture."""
VECTOR_DTYPES = [np.float32, np.float16]
"""Accepted types of numbers; others are converted to the first."""
Encode = Callable[[str, Sequence[Any]], ModalityFeatures]
"""Encodes the texts or pictures of a modality; None where a post has none."""


def as_entries(values: Any) -> Any:
    """The values as a list with an entry a post; as an array if they are numbers or a table."""
    if isinstance(values, POST):
        raise DataError(f"X is a single {type(values).__name__}.", "Give a list, an entry a post.")
    if hasattr(values, "to_numpy"):  # of pandas or Polars
        values = values.to_numpy()
    if isinstance(values, list | tuple):
        if any(isinstance(value, (*POST, np.ndarray)) for value in values):
            return list(values)
        if any(isinstance(value, list | tuple) and _has_post(value) for value in values):
            return _table_of(values)
        try:
            values = np.asarray(values)
        except ValueError:  # of unequal lengths
            return list(values)
    elif not hasattr(values, "dtype"):
        values = np.asarray(values)
    return list(values) if values.ndim == 1 and values.dtype.kind in "OU" else values


def _has_post(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, POST) for cell in cells)


def _table_of(rows: Sequence[Sequence[Any]]) -> NDArray[np.object_]:
    """An object array of rows of cells; NumPy itself would unpack pictures into numbers."""
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DataError(f"X has rows of {min(widths)} to {max(widths)} cells.")
    table = np.empty((len(rows), *widths), object)
    for index in np.ndindex(table.shape):
        table[index] = rows[index[0]][index[1]]
    return table


def holds_posts(table: Any) -> bool:
    """Whether a table's cells are texts, pictures or arrays, not single numbers."""
    return (
        isinstance(table, np.ndarray)
        and table.ndim == 2
        and table.dtype.kind in "OU"
        and any(isinstance(cell, (*POST, np.ndarray, list)) for cell in table.flat)
    )


def features_from_input(values: Any, modality: str, encode: Encode) -> ModalityFeatures | None:
    """Features of one modality of some posts; None if no post has it.

    Args:
        values: An array of vectors (posts, features); an array (posts, positions, features) or a
            sequence of arrays (positions, features); a sequence of texts or pictures; or None.
        modality: ``text`` or ``image``.
        encode: Encodes texts or pictures.

    Raises:
        DataError: They are none of these.
        ValueError: A number is not finite.
    """
    name = f"X_{modality}"
    if values is None:
        return None
    entries = as_entries(values)
    if not isinstance(entries, list) and entries.ndim != 3:
        return _in_memory(_checked(entries, name), name)
    rows = [row for row, entry in enumerate(entries) if not _is_missing(entry)]
    if not rows:
        return None
    present = [entries[row] for row in rows]
    kinds = {-1 if isinstance(entry, POST) else np.ndim(entry) for entry in present}
    table = np.full((len(entries), 1), -1)
    table[rows, 0] = np.arange(len(rows))
    if kinds == {-1}:
        posts = dict(zip(rows, present, strict=True))
        return encode(modality, [posts.get(row) for row in range(len(entries))])
    if kinds == {1}:
        _check_lengths({len(entry) for entry in present}, name)
        return _in_memory(_checked(np.stack(present), name), name, table=table)
    if kinds == {2}:
        tokens = [_checked(e, f"{name}[{i}]") for i, e in zip(rows, present, strict=True)]
        _check_lengths({sequence.shape[1] for sequence in tokens}, name)
        lengths = [len(sequence) for sequence in tokens]
        return _in_memory(np.concatenate(tokens), name, np.array(lengths), table)
    raise DataError(
        f"The entries of {name} are not all texts or pictures, nor all vectors, nor all arrays "
        "(positions, features)."
    )


def _checked(values: Any, name: str) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 is an error
        checked: NDArray[Any] = check_array(values, dtype=VECTOR_DTYPES, input_name=name)
    return checked


def _check_lengths(lengths: set[int], name: str) -> None:
    if len(lengths) > 1:
        raise DataError(f"{name} has vectors of {min(lengths)} to {max(lengths)} features.")


def _is_missing(entry: Any) -> bool:
    """Whether an entry is None, NaN, pandas' NA or a blank text."""
    if isinstance(entry, str):
        return not entry.strip()
    is_nan = isinstance(entry, float) and math.isnan(entry)
    return entry is None or is_nan or type(entry).__name__ == "NAType"


def _in_memory(
    tokens: NDArray[Any],
    name: str,
    lengths: NDArray[np.int64] | None = None,
    table: NDArray[np.int64] | None = None,
) -> ModalityFeatures:
    """Features of arrays.

    Args:
        tokens: Vectors of all rows, concatenated, (positions, dim).
        name: Name in error messages.
        lengths: Positions of each row; default: one each.
        table: See `ModalityFeatures`.
    """
    pools: tuple[str, ...] = ("mean",)
    pooled = tokens[:, None]
    offsets = np.arange(len(tokens) + 1)
    if lengths is not None:
        offsets = np.concatenate([[0], lengths.cumsum()])
        first = tokens[offsets[:-1]]
        mean = np.add.reduceat(tokens, offsets[:-1], dtype=np.float32) / lengths[:, None]
        pools = ("mean", "first")
        pooled = np.stack([mean.astype(tokens.dtype), first], 1)
    rows = len(offsets) - 1
    keys = np.zeros((rows, KEY_BYTES), np.uint8)
    shard = Shard(keys, [""] * rows, offsets, tokens, pooled, pools)
    return ModalityFeatures([shard], name, table=table)
