"""Posts that the report shows: confident errors and the least certain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.predictions import Predictions

from .attention_maps import Attended, Maps
from .thumbnails import heated, thumbnail

GALLERY = 8
"""Posts in each part of the gallery."""
MAX_CHARS = 600
"""Characters of a post's text that the gallery shows."""
MAX_WORDS = 8
"""Words of a post whose attention the gallery shows."""
LEAST_SCALE = 2.0
"""Attention, as multiples of an even one, that is drawn at full strength at the least: what is
nearly even everywhere must not look like a find."""


@dataclass(frozen=True, slots=True)
class Post:
    """What the gallery shows of a post."""

    text: str
    image: Path


def confident_errors(predictions: Predictions, most: int = GALLERY) -> NDArray[np.int64]:
    """Places of the wrong predictions, the highest probability of the predicted class first."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]


def least_certain(predictions: Predictions, most: int = GALLERY) -> NDArray[np.int64]:
    """Places of the rows whose two highest probabilities lie closest, the closest first."""
    ordered = np.sort(predictions.probabilities, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)
    return np.argsort(lead, kind="stable")[:most]


def cards(
    places: NDArray[np.int64], predictions: Predictions, posts: Mapping[str, Post], maps: Maps
) -> list[dict[str, Any]]:
    """What the gallery shows of each row."""
    found = []
    for place in places.tolist():
        guid = predictions.guids[place]
        post = posts.get(guid)
        picture, note = (None, "") if post is None else thumbnail(post.image)
        found.append(
            {
                "guid": guid,
                "text": None if post is None else post.text[:MAX_CHARS],
                "cut": post is not None and len(post.text) > MAX_CHARS,
                "picture": picture,
                "note": note,
                "attention": _attention(maps.posts[guid]) if guid in maps.posts else None,
                "label": int(predictions.labels[place]),
                "predicted": int(predictions.predicted[place]),
                "probabilities": predictions.probabilities[place].tolist(),
            }
        )
    return found


def _attention(found: Attended, most: int = MAX_WORDS) -> dict[str, Any]:
    """The words whose attention is the least even, in the order of the text, as pictures.

    All pictures of a post have one scale: full strength is its highest attention.
    """
    cells = found.weights.shape[1] * found.weights.shape[2]
    times = found.weights * cells  # 1: as much as every cell would get of an even attention
    peaks = times.max(axis=(1, 2))
    scale = max(LEAST_SCALE, float(peaks.max()))
    chosen: Sequence[int] = np.sort(np.argsort(-peaks, kind="stable")[:most]).tolist()
    return {
        "scale": scale,
        "grid": f"{found.weights.shape[1]}×{found.weights.shape[2]}",
        "left_out": len(found.words) - len(chosen),
        "maps": [
            {
                "word": found.words[k],
                "peak": float(peaks[k]),
                "where": _where(times[k]),
                "picture": heated(found.picture, (times[k] - 1) / (scale - 1)),
            }
            for k in chosen
        ],
    }


def _where(times: NDArray[np.float64]) -> str:
    """Where the highest cell lies, in words."""
    row, column = np.unravel_index(int(times.argmax()), times.shape)
    up = ("top", "middle", "bottom")[int(3 * (row + 0.5) / times.shape[0])]
    side = ("left", "centre", "right")[int(3 * (column + 0.5) / times.shape[1])]
    return f"{up} {side}"
