"""``--shards I/N``: the part of the rows that a command extracts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmsa_cache.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of the rows."""

    number: int
    """From 0."""
    count: int
    """Of parts."""
    finishing: bool = False
    """Whether the other parts are waited for, completed and merged."""

    @classmethod
    def of(cls, shards: str, finishing: bool = False) -> Portion:
        """The part that ``I/N`` is.

        Raises:
            SettingsError: It is none.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shards)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise SettingsError(
                f"--shards {shards!r} is no part of the rows.", "Write I/N, as 2/8: part 2 of 8."
            )
        return cls(int(match[1]) - 1, int(match[2]), finishing)

    @property
    def merges(self) -> bool:
        """Whether nobody else is expected to add rows: then small shards are merged."""
        return self.finishing or self.count == 1

    def in_turn(self) -> Iterator[tuple[int, int]]:
        """Numbers of the parts to do and how many there are, the own one first."""
        yield self.number, self.count
        if self.finishing:
            yield from ((n, self.count) for n in range(self.count) if n != self.number)


WHOLE = Portion(0, 1)
