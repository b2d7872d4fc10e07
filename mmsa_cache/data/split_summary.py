"""The counts of reading one split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmsa_cache.data.layouts.listing import UNLABELLED


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """How many rows of a split were kept, merged, dropped and set aside."""

    layout: str
    """``report``, ``tables``, ``MVSA-Single``, ``MVSA-Multiple`` or ``pairs``."""
    split: str
    label_counts: Mapping[str, int]
    """Label → rows kept, ``null`` included; labels without rows are left out."""
    merged: int
    """Kept rows whose label was merged from a neutral and a polar one."""
    dropped: int
    """Rows dropped for contradicting labels."""
    aside: int = 0
    """Rows set aside for an unusable text or picture."""
    replaced: tuple[str, ...] = ()
    """Guids of kept rows in whose texts bytes not valid in the encoding were replaced."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Remarks on the label file, for users."""

    def summary(self) -> str:
        """The counts in words, and a line for each note."""
        replaced = ""
        if self.replaced:
            guids = ", ".join(self.replaced[:5]) + (", …" if len(self.replaced) > 5 else "")
            replaced = (
                f" Bytes not valid in the encoding were replaced in {len(self.replaced)}: {guids}."
            )
        counts = ", ".join(
            f"{count} {'unlabelled' if tag == UNLABELLED else tag}"
            for tag, count in self.label_counts.items()
        )
        return (
            f"Data: layout {self.layout}, split {self.split}: "
            f"{sum(self.label_counts.values())} rows kept ({counts}), {self.merged} of them merged "
            f"from a neutral and a polar label; {self.dropped} dropped (contradicting labels)"
            + (f"; {self.aside} set aside (bad files)." if self.aside else ".")
            + replaced
            + "".join(f"\n  {note}" for note in self.notes)
        )
