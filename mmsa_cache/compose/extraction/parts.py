"""``--shards I/N``: the part of the rows that a command extracts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmsa_cache.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Portion:
    """One of several parts of the rows."""

    number: int
    """Number of the part, from 0."""
    count: int
    """Number of parts."""
    finishing: bool = False
    """Whether the command waits for the other parts, completes them and merges small shards."""

    @classmethod
    def of(cls, shards: str, finishing: bool = False) -> Portion:
        """Parses ``I/N``.

        Raises:
            SettingsError: The text is invalid.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shards)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise SettingsError(
                f"--shards {shards!r} is no part of the rows.", "Write I/N, as 2/8: part 2 of 8."
            )
        return cls(int(match[1]) - 1, int(match[2]), finishing)

    @property
    def merges(self) -> bool:
        """Whether small shards are merged, as no other command is expected to add rows."""
        return self.finishing or self.count == 1

    def in_turn(self) -> Iterator[tuple[int, int]]:
        """Number and count of each part to extract, the own one first."""
        yield self.number, self.count
        if self.finishing:
            yield from ((n, self.count) for n in range(self.count) if n != self.number)


WHOLE = Portion(0, 1)
