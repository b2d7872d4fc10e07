"""What reading a split kept, merged and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmsa_cache.data.layouts.listing import UNLABELLED


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What reading a split kept, merged and dropped."""

    layout: str
    """``report``, ``tables``, ``MVSA-Single``, ``MVSA-Multiple`` or ``pairs``."""
    split: str
    kept: Mapping[str, int]
    """Rows kept of each label, ``null`` included; labels without rows are left out."""
    merged: int
    """Kept rows whose label came from a neutral and a polar one."""
    dropped: int
    """Rows whose labels contradict each other."""
    aside: int = 0
    """Rows set aside because their text or picture cannot be used."""
    replaced: tuple[str, ...] = ()
    """Kept rows of whose texts some bytes were replaced, not being valid in the encoding."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a person should know of how the label file was read."""

    def summary(self) -> str:
        """One line for a person."""
        counts = ", ".join(
            f"{count} {'unlabelled' if tag == UNLABELLED else tag}"
            for tag, count in self.kept.items()
        )
        return (
            f"Data: layout {self.layout}, split {self.split}: {sum(self.kept.values())} rows kept "
            f"({counts}), {self.merged} of them merged from a neutral and a polar label; "
            f"{self.dropped} dropped (contradicting labels)"
            + (f"; {self.aside} set aside (bad files)." if self.aside else ".")
            + self._told_of_replaced()
            + "".join(f"\n  {note}" for note in self.notes)
        )

    def _told_of_replaced(self) -> str:
        if not self.replaced:
            return ""
        some = ", ".join(self.replaced[:5]) + (", …" if len(self.replaced) > 5 else "")
        return f" Bytes not valid in the encoding were replaced in {len(self.replaced)}: {some}."
