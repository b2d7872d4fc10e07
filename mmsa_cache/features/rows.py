"""The rows of features that samples need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.key_table import as_sortable
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.keys import Keys, as_keys, content_keys, variant_key


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The distinct rows of one modality, and which of them each sample has. Picklable."""

    keys: Keys
    """(rows, 16), in the order in which samples need them first"""
    table: NDArray[np.int64]
    """(samples, 1 + copies): places in `keys`, the original first; −1 where there is no copy, or
    the sample has nothing of the modality"""

    @property
    def shared(self) -> int:
        """Rows that are needed more than once, counted without the first time."""
        return int((self.table >= 0).sum()) - len(self.keys)

    def of(self, encoder: EncoderIdentity) -> SampleRows:
        """Those that an encoder's features can have: where they were imported, the originals."""
        if not encoder.imported:
            return self
        count = int(self.table[:, 0].max(initial=-1)) + 1  # originals come first
        return SampleRows(self.keys[:count], self.table[:, :1])


def sample_rows(
    digests: NDArray[np.uint8],
    copies: Sequence[int] | NDArray[np.int64],
    augmentation: str | Sequence[str],
) -> SampleRows:
    """The rows that samples need: originals in order, then the copies sample by sample.

    Args:
        digests: sha256 of each sample's content, (samples, 32); zeros where it has none: such a
            sample needs no row.
        copies: Augmented copies of each sample, (samples,).
        augmentation: The policy and its seed, or those of each sample; where they are empty, the
            copies are the original once more.
    """
    policies = [augmentation] * len(digests) if isinstance(augmentation, str) else augmentation
    there = digests.any(1)
    count = np.where(there, np.asarray(copies, np.int64), 0)
    table = np.full((len(digests), 1 + int(count.max(initial=0))), -1, np.int64)
    originals = int(there.sum())
    table[there, 0] = np.arange(originals)
    augmented: list[bytes] = []
    for sample in np.flatnonzero(count).tolist():
        if not policies[sample]:
            table[sample, 1 : int(count[sample]) + 1] = table[sample, 0]
            continue
        first = originals + len(augmented)
        content = digests[sample].tobytes().hex()
        numbers = range(1, int(count[sample]) + 1)
        augmented += [variant_key(content, policies[sample], number) for number in numbers]
        table[sample, 1 : len(numbers) + 1] = np.arange(first, first + len(numbers))
    every = np.concatenate([content_keys(digests[there]), as_keys(augmented)])
    _, first_place, inverse = np.unique(as_sortable(every), return_index=True, return_inverse=True)
    order = np.argsort(first_place, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    place = np.append(rank[inverse.reshape(-1)], -1)  # a −1 stays one
    return SampleRows(every[first_place[order]], place[table])
