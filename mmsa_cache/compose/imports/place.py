"""Which samples of a store the rows of files belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmsa_cache.data.table import IntArray, SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.key_table import as_sortable
from mmsa_cache.store.keys import Keys, content_keys


@dataclass(frozen=True)
class Placed:
    """The rows of files, in their order."""

    guids: list[str]
    keys: Keys
    """(rows, 16), of the samples' contents"""
    splits: dict[str, int]
    """Rows that are in each split."""

    @property
    def twins(self) -> tuple[NDArray[np.bool_], IntArray]:
        """Which rows are the first of their content, and the number of every row's content; rows
        of samples that lack the modality are none."""
        values, first, content = np.unique(
            as_sortable(self.keys), return_index=True, return_inverse=True
        )
        is_first = np.zeros(len(self.keys), np.bool_)
        is_first[first[: len(values)]] = True
        is_first &= self.keys.any(1)
        return is_first, content.reshape(-1)


def in_order(splits: Mapping[str, SampleTable], rows: int) -> tuple[str, list[str]]:
    """The split whose samples rows without names are, and its names.

    Raises:
        DataError: None has so many samples, or several have.
    """
    fitting = [split for split, samples in splits.items() if len(samples) == rows]
    if len(fitting) != 1:
        counts = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
        raise DataError(
            f"The files have {rows} rows without names; the splits have: {counts}.",
            "Name them with --guids FILE, one a line"
            + (", or choose with --split." if fitting else "."),
        )
    return fitting[0], splits[fitting[0]].guids


def place(
    guids: Sequence[str], splits: Mapping[str, SampleTable], modality: str
) -> tuple[Placed, list[str]]:
    """Finds the sample of every row.

    A split is meant where a row is one of its samples; then every sample of it needs one.

    Returns:
        The rows, and what is wrong with their names.
    """
    names = pa.array(guids, pa.large_string())
    keys = np.zeros((len(guids), 16), np.uint8)
    found = np.zeros(len(guids), np.bool_)
    counts, problems = {}, _doubles(names)
    for split, samples in splits.items():
        places = pc.index_in(names, value_set=samples.table["guid"].combine_chunks())
        here = ~places.is_null().to_numpy(zero_copy_only=False)
        if not here.any():
            continue
        own = places.drop_null().to_numpy()
        digests = samples.digests(modality)
        contents = content_keys(digests)[own]
        other = found[here] & (keys[here] != contents).any(1)
        problems += [
            f"guid {guids[row]}: it is in several splits, with different contents; give --split"
            for row in np.flatnonzero(here)[other].tolist()
        ]
        keys[here], counts[split] = contents, int(here.sum())
        found |= here
        lacking = np.setdiff1d(np.flatnonzero(digests.any(1)), own)
        missing = samples.table["guid"].take(pa.array(lacking)).to_pylist()
        problems += [f"guid {guid}: {split} has it, the files do not" for guid in missing]
    problems += [
        f"guid {guids[row]}: no sample of {', '.join(splits)} has this name"
        for row in np.flatnonzero(~found).tolist()
    ]
    return Placed(list(guids), keys, counts), problems


def _doubles(names: pa.Array) -> list[str]:
    counts = pc.value_counts(names)
    more = counts.filter(pc.greater(counts.field("counts"), 1))
    return [f"guid {item['values']}: {item['counts']} rows have it" for item in more.to_pylist()]
