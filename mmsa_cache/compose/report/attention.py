"""What the report shows of the attention of words to patches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pages.thumbnails import Thumbnail, encode

MAP = 128
"""Longest side of a picture with attention on it, in pixels."""
MAX_WORDS = 8
"""Words of a post that are shown."""
LEAST_SCALE = 2.0
"""Least attention drawn at full strength, as a multiple of uniform attention: nearly uniform
attention must not look like a finding."""
# Of the attention: faint, strong. Both stand out from grey, on light and dark pages.
_FAINT, _STRONG = np.array([190.0, 20.0, 60.0]), np.array([255.0, 225.0, 70.0])
_OPAQUE = 0.85


@dataclass(frozen=True, slots=True)
class Attended:
    """The attention of one post's words."""

    picture: NDArray[np.uint8]
    """The picture as the encoder saw it, (height, width, 3)."""
    words: list[str]
    weights: NDArray[np.float64]
    """Attention of each word to each cell of a grid over the picture, (words, rows, columns); the
    cells of a word sum to 1."""


@dataclass(frozen=True, slots=True)
class Maps:
    """The attention of some posts."""

    said: str
    """What the weights are, or why there are none."""
    posts: dict[str, Attended] = field(default_factory=dict)
    """By guid."""


@dataclass(frozen=True, slots=True)
class WordMap:
    """One word's attention, drawn."""

    word: str
    peak: float
    """Highest attention of a cell, as a multiple of uniform attention."""
    where: str
    picture: Thumbnail


@dataclass(frozen=True, slots=True)
class PostMaps:
    """Some words' attention in one post, on one scale."""

    scale: float
    """Attention drawn at full strength, as a multiple of uniform attention."""
    grid: str
    left_out: int
    """Words that are not shown."""
    maps: list[WordMap]


def word_maps(attended: Attended) -> PostMaps:
    """The `MAX_WORDS` words whose attention is the least uniform, in the order of the text."""
    cells = attended.weights.shape[1] * attended.weights.shape[2]
    times = attended.weights * cells
    peaks = times.max(axis=(1, 2))
    scale = max(LEAST_SCALE, float(peaks.max()))
    chosen = np.sort(np.argsort(-peaks, kind="stable")[:MAX_WORDS]).tolist()
    return PostMaps(
        scale,
        f"{attended.weights.shape[1]}×{attended.weights.shape[2]}",
        len(attended.words) - len(chosen),
        [
            WordMap(
                attended.words[k],
                float(peaks[k]),
                _where(times[k]),
                _heated(attended.picture, (times[k] - 1) / (scale - 1)),
            )
            for k in chosen
        ],
    )


def _where(times: NDArray[np.float64]) -> str:
    """Where the highest cell lies, in words."""
    row, column = np.unravel_index(int(times.argmax()), times.shape)
    up = ("top", "middle", "bottom")[int(3 * (row + 0.5) / times.shape[0])]
    side = ("left", "centre", "right")[int(3 * (column + 0.5) / times.shape[1])]
    return f"{up} {side}"


def _heated(picture: NDArray[np.uint8], strength: NDArray[np.float64]) -> Thumbnail:
    """A picture in grey with attention over it, from dark red to yellow.

    Args:
        picture: (height, width, 3) uint8.
        strength: 0 (not drawn) to 1 of each cell of a grid over the picture, (rows, columns).
    """
    grey = Image.fromarray(picture).convert("L")
    grey.thumbnail((MAP, MAP))
    cells = Image.fromarray((strength.clip(0, 1) * 255).round().astype(np.uint8))
    heat = np.asarray(cells.resize(grey.size, Image.Resampling.BILINEAR), np.float64)[..., None]
    heat /= 255
    base = 20 + 0.75 * np.asarray(grey, np.float64)[..., None]  # bright pictures drown colours
    colour = _FAINT + heat * (_STRONG - _FAINT)
    mixed = base + _OPAQUE * np.sqrt(heat) * (colour - base)
    return encode(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)))
