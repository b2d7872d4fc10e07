"""Names of data sets of the Hugging Face hub, which may stand for a folder."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "hf://datasets/"
_AS_PATH = "hf:/datasets/"
"""The prefix after conversion to a path."""
_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}"
HUB_NAME = re.compile(rf"({_PART}(?:/{_PART})?)(?:@([\w./-]{{1,200}}))?")
"""Name and revision of a data set."""


def hub_name(root: Path | None) -> str | None:
    """``NAME[@REVISION]`` of a data set; None for a path."""
    name = str(root or "")
    return name.removeprefix(_AS_PATH) if name.startswith(_AS_PATH) else None


def check_root(value: object) -> object:
    """Refuses malformed names of data sets of the hub.

    Raises:
        ValueError: The value begins as such a name but is none.
    """
    name = re.sub("^hf:/+", "hf:/", str(value))
    if name.startswith("hf:/") and not HUB_NAME.fullmatch(name.removeprefix(_AS_PATH)):
        raise ValueError(f"write {PREFIX}USER/NAME[@REVISION]")
    return value
