"""The augmentation policy of each text's copies: some texts use another one than their split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .row_masks import unpack_rows
from .stored_split import StoredSplit
from .table import SampleTable


def augmentations(
    stored: tuple[StoredSplit, SampleTable], modality: str, samples: SampleTable
) -> str | Sequence[str]:
    """``POLICY:SEED`` of the copies of all samples, or a list with that of each one.

    Args:
        stored: A split of the store.
        modality: ``text`` or ``image``.
        samples: Samples of the split.
    """
    split, table = stored
    if modality != "text" or not split.others:
        return split.augmentation
    digests = table.digests("text")
    by_digest: Mapping[bytes, str] = {
        digest.tobytes(): name
        for name, mask in split.others.items()
        for digest in digests[unpack_rows(mask, len(table))]
    }
    return [
        by_digest.get(digest.tobytes(), split.augmentation) for digest in samples.digests("text")
    ]
