"""Posts that the report shows: confident errors and the least certain ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuse.figures.predictions import Predictions
from mmsa_cache.errors import BadFileError

from ..pages.thumbnails import Thumbnail, thumbnail
from .attention import Maps, PostMaps, word_maps

GALLERY = 8
"""Posts in each part of the gallery."""
MAX_CHARS = 600
"""Characters of a post's text that the gallery shows."""
THUMBNAIL = 192
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, slots=True)
class GalleryPost:
    """What the gallery shows of a post."""

    text: str
    image: Path | None
    """None where the data is not at hand."""


@dataclass(frozen=True, slots=True)
class Card:
    """A row of the gallery."""

    guid: str
    text: str | None
    """None without the data."""
    cut: bool
    picture: Thumbnail | None
    note: str
    """Why there is no picture."""
    attention: PostMaps | None
    label: int
    predicted: int
    probabilities: list[float]


def confident_errors(predictions: Predictions, most: int = GALLERY) -> NDArray[np.int64]:
    """Places of the wrong predictions, the highest probability of the predicted class first."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]


def least_certain(predictions: Predictions) -> NDArray[np.int64]:
    """Places of the rows whose two highest probabilities lie closest, the closest first."""
    ordered = np.sort(predictions.probabilities, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)
    return np.argsort(lead, kind="stable")[:GALLERY]


def cards(
    places: NDArray[np.int64],
    predictions: Predictions,
    posts: Mapping[str, GalleryPost],
    maps: Maps,
) -> list[Card]:
    """What the gallery shows of each row."""
    return [_card(place, predictions, posts, maps) for place in places.tolist()]


def _card(
    place: int, predictions: Predictions, posts: Mapping[str, GalleryPost], maps: Maps
) -> Card:
    guid = predictions.guids[place]
    post, attended = posts.get(guid), maps.posts.get(guid)
    picture, note = (None, "") if post is None else _picture(post.image)
    return Card(
        guid,
        None if post is None else post.text[:MAX_CHARS],
        post is not None and len(post.text) > MAX_CHARS,
        picture,
        note,
        None if attended is None else word_maps(attended),
        int(predictions.labels[place]),
        int(predictions.predicted[place]),
        predictions.probabilities[place].tolist(),
    )


def _picture(path: Path | None) -> tuple[Thumbnail | None, str]:
    """The picture, or why there is none."""
    if path is None:
        return None, "The pictures are not at hand."
    try:
        return thumbnail(path, THUMBNAIL), ""
    except FileNotFoundError:
        return None, "The picture is missing."
    except (OSError, BadFileError):
        return None, "The picture cannot be opened."
