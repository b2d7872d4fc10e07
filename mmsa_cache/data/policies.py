"""Which policy of augmentation made the copies of each text: some texts need another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .row_masks import unpack_rows
from .stored import StoredSplit
from .table import SampleTable


def augmentations(
    stored: tuple[StoredSplit, SampleTable], modality: str, samples: SampleTable
) -> str | Sequence[str]:
    """The policy and seed of samples' copies, or those of each sample; see `wanted_rows`.

    Args:
        stored: A split of a store.
        modality: ``text`` or ``image``.
        samples: Some of it, or all.
    """
    about, table = stored
    if modality != "text" or not about.others:
        return about.augmentation
    digests = table.digests("text")
    known: Mapping[bytes, str] = {
        digest.tobytes(): name
        for name, mask in about.others.items()
        for digest in digests[unpack_rows(mask, len(table))]
    }
    own = samples.digests("text")
    return [known.get(digest.tobytes(), about.augmentation) for digest in own]
