"""The report's gallery: confident errors, and the least certain posts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuse.figures.predictions import Predictions
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import BadFileError

from ..pages.thumbnails import Thumbnail, thumbnail
from .attention import AttentionMaps, PostMaps, word_maps

GALLERY = 8
"""Posts in each part of the gallery."""
MAX_CHARS = 600
"""Characters shown of a post's text."""
THUMBNAIL = 192
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, slots=True)
class GalleryPost:
    """Text and picture of a post."""

    text: str
    image: Path | None
    """None if the picture is missing."""


@dataclass(frozen=True, slots=True)
class Card:
    """A row of the gallery."""

    guid: str
    text: str | None
    """None if the post is missing."""
    cut: bool
    """Whether the text is longer than `MAX_CHARS`."""
    picture: Thumbnail | None
    note: str
    """Why there is no picture."""
    attention: PostMaps | None
    label: int
    predicted: int
    probabilities: list[float]


def confident_errors(predictions: Predictions, count: int = GALLERY) -> NDArray[np.int64]:
    """Rows of the wrong predictions, the highest probability of the predicted class first."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:count]


def least_certain(predictions: Predictions) -> NDArray[np.int64]:
    """The rows whose two highest probabilities lie closest, the closest first."""
    ordered = np.sort(predictions.probabilities, axis=1)
    margin = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)
    return np.argsort(margin, kind="stable")[:GALLERY]


def gallery_posts(samples: Iterable[Sample]) -> dict[str, GalleryPost]:
    """Text and picture of posts, by guid."""
    return {post.guid: GalleryPost(post.text or "", post.image_path) for post in samples}


def cards(
    rows: NDArray[np.int64],
    predictions: Predictions,
    posts: Mapping[str, GalleryPost],
    maps: AttentionMaps = AttentionMaps(""),  # noqa: B008  (frozen)
) -> list[Card]:
    """The cards of some rows.

    Args:
        rows: Row numbers of the predictions.
        predictions: The predictions.
        posts: Text and picture by guid; guids may be missing.
        maps: Attention by guid.
    """
    return [_card(row, predictions, posts, maps) for row in rows.tolist()]


def _card(
    row: int, predictions: Predictions, posts: Mapping[str, GalleryPost], maps: AttentionMaps
) -> Card:
    guid = predictions.guids[row]
    post, attention = posts.get(guid), maps.posts.get(guid)
    picture, note = (None, "") if post is None else load_thumbnail(post.image)
    return Card(
        guid,
        None if post is None else post.text[:MAX_CHARS],
        post is not None and len(post.text) > MAX_CHARS,
        picture,
        note,
        None if attention is None else word_maps(attention),
        int(predictions.labels[row]),
        int(predictions.predicted[row]),
        predictions.probabilities[row].tolist(),
    )


def load_thumbnail(path: Path | None, side: int = THUMBNAIL) -> tuple[Thumbnail | None, str]:
    """The thumbnail of a picture, or None and a note why there is none."""
    if path is None:
        return None, "The pictures are not at hand."
    try:
        return thumbnail(path, side), ""
    except FileNotFoundError:
        return None, "The picture is missing."
    except (OSError, ValueError, BadFileError):
        return None, "The picture cannot be opened."
