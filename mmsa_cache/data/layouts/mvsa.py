"""Raw MVSA: the majority of the annotators, then one label of text and picture.

The text and the picture have a label each, by one or three annotators: the majority of each is
taken, then the two are merged.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.data.files import MAX_LABEL_BYTES, read_inside

from .listing import LabelRow, Listing
from .report import label_lines, numbered_rows

NEUTRAL = "neutral"
_MVSA_LAYOUTS = {1: "MVSA-Single", 3: "MVSA-Multiple"}
"""Annotators a row → name."""


def majority(votes: Sequence[str]) -> str | None:
    """The label that more than half of the annotators gave, if any."""
    return next((vote for vote in votes if 2 * votes.count(vote) > len(votes)), None)


def merge(text: str, image: str) -> str | None:
    """One label of a text's and a picture's: equal keep, neutral yields; else None (drop)."""
    if text == image or image == NEUTRAL:
        return text
    return image if text == NEUTRAL else None


def list_mvsa(listing: Listing) -> None:
    path = listing.source
    lines = label_lines(listing, read_inside(path.parent.resolve(), path.name, MAX_LABEL_BYTES))
    header = lines[0].strip().split("\t") if lines else []
    annotators = len(header) - 1
    if lines and (
        annotators not in _MVSA_LAYOUTS or header != ["ID", *["text,image"] * annotators]
    ):
        listing.note(
            1,
            "expected the header 'ID<TAB>text,image', with one text,image (MVSA-Single) or three "
            f"(MVSA-Multiple), received {lines[0]!r}",
        )
        return
    listing.layout = _MVSA_LAYOUTS.get(annotators, listing.layout)
    for number, line in numbered_rows(lines):
        guid, *cells = line.split("\t")
        votes = [cell.split(",") for cell in cells]
        wrong = next(
            (cell for cell, vote in zip(cells, votes, strict=True) if len(vote) != 2), None
        )
        if len(cells) != annotators:
            listing.note(number, f"expected {annotators + 1} columns, received {len(cells) + 1}")
        elif wrong is not None:
            listing.note(number, f"expected the labels of text,image, received {wrong!r}")
        elif listing.accepts(
            LabelRow(guid, None, number),
            [label for vote in votes for label in vote],
            listing.classes,
        ):
            text, image = (majority(labels) for labels in zip(*votes, strict=True))
            label = merge(text, image) if text and image else None
            if label is None:
                listing.dropped += 1
                continue
            listing.merged += text != image
            listing.rows.append(LabelRow(guid, listing.classes.index(label), number))
