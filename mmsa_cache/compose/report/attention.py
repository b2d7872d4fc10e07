"""Pictures of the attention of words to patches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pages.thumbnails import Thumbnail, encode

MAP = 128
"""Longest side of an attention picture, in pixels."""
MAX_WORDS = 8
"""Words shown of a post."""
LEAST_SCALE = 2.0
"""Least attention drawn at full strength, as a multiple of uniform attention, so that nearly
uniform attention stays faint."""
# Colours of weak and strong attention; both stand out from grey, on light and dark pages.
_FAINT, _STRONG = np.array([190.0, 20.0, 60.0]), np.array([255.0, 225.0, 70.0])
_OPAQUE = 0.85


@dataclass(frozen=True, slots=True)
class PostAttention:
    """The attention of the words of one post."""

    picture: NDArray[np.uint8]
    """The picture as the encoder saw it, (height, width, 3)."""
    words: list[str]
    weights: NDArray[np.float64]
    """Attention of each word to each patch, (words, rows, columns); a word's sum is 1."""


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """The attention of some posts."""

    note: str
    """What the weights are, or why there are none."""
    posts: dict[str, PostAttention] = field(default_factory=dict)
    """By guid."""


@dataclass(frozen=True, slots=True)
class WordMap:
    """One word's attention, drawn."""

    word: str
    peak: float
    """Highest attention of a patch, as a multiple of uniform attention."""
    where: str
    """Position of that patch, in words."""
    picture: Thumbnail


@dataclass(frozen=True, slots=True)
class PostMaps:
    """The attention of some words of one post, on one scale."""

    scale: float
    """Attention drawn at full strength, as a multiple of uniform attention."""
    grid: str
    """As ``8×8``."""
    left_out: int
    """Words that are not shown."""
    maps: list[WordMap]


def word_maps(attention: PostAttention) -> PostMaps:
    """Draws the `MAX_WORDS` words of the least uniform attention, in the order of the text."""
    rows, columns = attention.weights.shape[1:]
    relative = attention.weights * rows * columns
    peaks = relative.max(axis=(1, 2))
    scale = max(LEAST_SCALE, float(peaks.max()))
    chosen = np.sort(np.argsort(-peaks, kind="stable")[:MAX_WORDS]).tolist()
    return PostMaps(
        scale,
        f"{rows}×{columns}",
        len(attention.words) - len(chosen),
        [
            WordMap(
                attention.words[word],
                float(peaks[word]),
                _peak_position(relative[word]),
                _heat_map(attention.picture, (relative[word] - 1) / (scale - 1)),
            )
            for word in chosen
        ],
    )


def _peak_position(weights: NDArray[np.float64]) -> str:
    """The position of the highest patch, in words."""
    row, column = np.unravel_index(int(weights.argmax()), weights.shape)
    vertical = ("top", "middle", "bottom")[int(3 * (row + 0.5) / weights.shape[0])]
    horizontal = ("left", "centre", "right")[int(3 * (column + 0.5) / weights.shape[1])]
    return f"{vertical} {horizontal}"


def _heat_map(picture: NDArray[np.uint8], strength: NDArray[np.float64]) -> Thumbnail:
    """A grey picture with attention over it, from dark red to yellow.

    Args:
        picture: (height, width, 3) uint8.
        strength: From 0 (not drawn) to 1 by patch, (rows, columns).
    """
    grey = Image.fromarray(picture).convert("L")
    grey.thumbnail((MAP, MAP))
    cells = Image.fromarray((strength.clip(0, 1) * 255).round().astype(np.uint8))
    heat = np.asarray(cells.resize(grey.size, Image.Resampling.BILINEAR), np.float64)[..., None]
    heat /= 255
    # Darker, since bright pictures hide colours.
    base = 20 + 0.75 * np.asarray(grey, np.float64)[..., None]
    colour = _FAINT + heat * (_STRONG - _FAINT)
    mixed = base + _OPAQUE * np.sqrt(heat) * (colour - base)
    return encode(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)))
