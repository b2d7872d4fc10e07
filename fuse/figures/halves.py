"""Rows by what their posts have: text and picture, or one of them."""

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
    """Masks of the rows of each kind that occurs, (rows,); empty if all posts are whole.

    Args:
        present: Whether each row has a text and a picture, (rows, 2).
    """
    if present.all():
        return {}
    masks = {kind: (present == np.array(halves)).all(1) for kind, halves in _HALVES.items()}
    return {kind: mask for kind, mask in masks.items() if mask.any()}
