"""Rows apart by which halves of a post they have: text and picture, or one of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Presence = Literal["whole posts", "text only", "picture only"]
_HALVES: dict[Presence, tuple[bool, bool]] = {
    "whole posts": (True, True),
    "text only": (True, False),
    "picture only": (False, True),
}


def rows_by_presence(present: NDArray[np.bool_]) -> dict[Presence, NDArray[np.bool_]]:
    """The rows of each kind that there is, (rows,); none where all are whole.

    Args:
        present: Whether each row has a text, and a picture, (rows, 2).
    """
    if present.all():
        return {}
    found = {kind: (present == np.array(of)).all(1) for kind, of in _HALVES.items()}
    return {kind: rows for kind, rows in found.items() if rows.any()}
