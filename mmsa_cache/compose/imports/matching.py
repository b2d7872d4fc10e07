"""Matches the rows of imported files with the samples of a store."""

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
class MatchedRows:
    """The rows of files in their order, with the samples that they belong to."""

    guids: list[str]
    keys: Keys
    """Keys of the samples' contents, (rows, 16)"""
    splits: dict[str, int]
    """Number of rows in each split."""

    def group_by_content(self) -> tuple[NDArray[np.bool_], IntArray]:
        """Groups the rows by their content.

        Returns:
            Whether each row is the first one of its content, never for samples that lack the
            modality; and the number of its content, (rows,) each.
        """
        values, first, content = np.unique(
            as_sortable(self.keys), return_index=True, return_inverse=True
        )
        is_first = np.zeros(len(self.keys), np.bool_)
        is_first[first[: len(values)]] = True
        is_first &= self.keys.any(1)
        return is_first, content.reshape(-1)


def guids_by_order(splits: Mapping[str, SampleTable], rows: int) -> tuple[str, list[str]]:
    """The split that has as many samples as there are rows without names, and its guids.

    Raises:
        DataError: No split has, or several have.
    """
    matches = [split for split, samples in splits.items() if len(samples) == rows]
    if len(matches) != 1:
        counts = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
        raise DataError(
            f"The files have {rows} rows without names; the splits have: {counts}.",
            "Name them with --guids FILE, one a line"
            + (", or choose with --split." if matches else "."),
        )
    return matches[0], splits[matches[0]].guids


def match_rows(
    guids: Sequence[str], splits: Mapping[str, SampleTable], modality: str
) -> tuple[MatchedRows, list[str]]:
    """Finds the sample of every row by its guid.

    Every sample of a split needs a row if one of them has a row.

    Returns:
        The rows, and the problems with their guids.
    """
    names = pa.array(guids, pa.large_string())
    keys = np.zeros((len(guids), 16), np.uint8)
    matched = np.zeros(len(guids), np.bool_)
    counts, problems = {}, _repeated_guids(names)
    for split, samples in splits.items():
        indices = pc.index_in(names, value_set=samples.table["guid"].combine_chunks())
        in_split = ~indices.is_null().to_numpy(zero_copy_only=False)
        if not in_split.any():
            continue
        own = indices.drop_null().to_numpy()
        digests = samples.digests(modality)
        contents = content_keys(digests)[own]
        differing = matched[in_split] & (keys[in_split] != contents).any(1)
        problems += [
            f"guid {guids[row]}: it is in several splits, with different contents; give --split"
            for row in np.flatnonzero(in_split)[differing].tolist()
        ]
        keys[in_split], counts[split] = contents, int(in_split.sum())
        matched |= in_split
        without_row = np.setdiff1d(np.flatnonzero(digests.any(1)), own)
        missing = samples.table["guid"].take(pa.array(without_row)).to_pylist()
        problems += [f"guid {guid}: {split} has it, the files do not" for guid in missing]
    problems += [
        f"guid {guids[row]}: no sample of {', '.join(splits)} has this name"
        for row in np.flatnonzero(~matched).tolist()
    ]
    return MatchedRows(list(guids), keys, counts), problems


def _repeated_guids(names: pa.Array) -> list[str]:
    counts = pc.value_counts(names)
    more = counts.filter(pc.greater(counts.field("counts"), 1))
    return [f"guid {item['values']}: {item['counts']} rows have it" for item in more.to_pylist()]
