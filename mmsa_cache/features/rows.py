"""The rows of features of samples."""

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
    """The distinct rows of one modality, and the rows of each sample. Picklable."""

    keys: Keys
    """(rows, 16), in the order of their first use"""
    table: NDArray[np.int64]
    """(samples, 1 + copies): indices into `keys`, the original first; −1 where there is no copy, or
    the sample lacks the modality"""

    @property
    def shared(self) -> int:
        """Number of repeated uses of rows."""
        return int((self.table >= 0).sum()) - len(self.keys)

    def of(self, encoder: EncoderIdentity) -> SampleRows:
        """The rows that an encoder can have: of imported features the originals only."""
        if not encoder.imported:
            return self
        count = int(self.table[:, 0].max(initial=-1)) + 1  # originals come first
        return SampleRows(self.keys[:count], self.table[:, :1])


def sample_rows(
    digests: NDArray[np.uint8],
    copies: Sequence[int] | NDArray[np.int64],
    augmentation: str | Sequence[str],
) -> SampleRows:
    """The rows of samples: the originals in order, then the copies of each sample.

    Args:
        digests: sha256 of each sample's content, (samples, 32); zeros for a sample without the
            modality, which needs no row.
        copies: Number of augmented copies of each sample, (samples,).
        augmentation: Policy and seed, of all samples or of each; with an empty one the copies
            equal the original.
    """
    policies = [augmentation] * len(digests) if isinstance(augmentation, str) else augmentation
    exists = digests.any(1)
    count = np.where(exists, np.asarray(copies, np.int64), 0)
    table = np.full((len(digests), 1 + int(count.max(initial=0))), -1, np.int64)
    originals = int(exists.sum())
    table[exists, 0] = np.arange(originals)
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
    every = np.concatenate([content_keys(digests[exists]), as_keys(augmented)])
    _, first_index, inverse = np.unique(as_sortable(every), return_index=True, return_inverse=True)
    order = np.argsort(first_index, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    index = np.append(rank[inverse.reshape(-1)], -1)  # so that −1 maps to −1
    return SampleRows(every[first_index[order]], index[table])
