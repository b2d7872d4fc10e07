"""Names of data sets of the Hugging Face hub, in the place of a folder."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "hf://datasets/"
_AS_PATH = "hf:/datasets/"
"""What a path makes of the prefix."""
_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}"
HUB_NAME = re.compile(rf"({_PART}(?:/{_PART})?)(?:@([\w./-]{{1,200}}))?")
"""Name and revision of a data set."""


def hub_name(root: Path | None) -> str | None:
    """``NAME[@REVISION]`` of what stands in the place of a folder; None of a path."""
    name = str(root or "")
    return name.removeprefix(_AS_PATH) if name.startswith(_AS_PATH) else None


def check_root(value: object) -> object:
    """Refuses what begins as the name of a data set of the hub and is none.

    Raises:
        ValueError: It is.
    """
    name = re.sub("^hf:/+", "hf:/", str(value))
    if name.startswith("hf:/") and not HUB_NAME.fullmatch(name.removeprefix(_AS_PATH)):
        raise ValueError(f"write {PREFIX}USER/NAME[@REVISION]")
    return value
