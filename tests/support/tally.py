"""Lines of the table of the fault series."""

from __future__ import annotations

from collections.abc import Callable

Tally = Callable[[str, int, str], None]
