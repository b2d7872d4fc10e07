"""Raw MVSA label files: the annotators' majority, then one label of text and picture.

Text and picture are labelled separately by one or three annotators: the majority of each is taken,
then the two are merged. The header is ``ID<TAB>text,image`` with one ``text,image`` per annotator;
only commas, only tabs, other case and surrounding spaces are accepted too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.tables.text_lines import TextLines, with_utf8

from .listing import DROPPED, UNKNOWN, LabelRow, Listing, RowSource

NEUTRAL = "neutral"
_MVSA_LAYOUTS = {1: "MVSA-Single", 3: "MVSA-Multiple"}
"""Number of annotators → layout."""


def majority(votes: Sequence[str]) -> str | None:
    """The label given by more than half of the annotators, if any."""
    return next((vote for vote in votes if 2 * votes.count(vote) > len(votes)), None)


def merge(text: str, image: str) -> str | None:
    """Merges two labels: equal ones stay, neutral yields to the other; else None (drop)."""
    if text == image or image == NEUTRAL:
        return text
    return image if text == NEUTRAL else None


def mvsa_rows(path: Path, data: DataSettings) -> RowSource:
    """The rows of a raw MVSA label file (UTF-8)."""
    return lambda listing: _rows(listing, path, data)


def _rows(listing: Listing, path: Path, data: DataSettings) -> Iterator[LabelRow]:
    lines = enumerate(TextLines(path, data.folder, with_utf8(data)), start=1)
    header = next((line.rstrip() for _, line in lines), "")
    id_, *halves = _cells(header.lower(), " ")
    annotators = len(halves) // 2
    pairs = [("text", "image"), ("image", "text")]
    order = next((pair for pair in pairs if halves == [*pair] * annotators), None)
    if annotators not in _MVSA_LAYOUTS or order is None or id_ not in ("id", "guid"):
        expected = (
            "expected the header 'ID<TAB>text,image', with one text,image (MVSA-Single) or "
            f"three (MVSA-Multiple), received {header!r}"
        )
        listing.note(int(bool(header)), expected if header else "empty file")
        return
    listing.layout, listing.agreeing = _MVSA_LAYOUTS[annotators], 0
    listing.findings.file = path.name
    for number, line in lines:
        guid, *tags = _cells(line)
        if len(tags) == 2 * annotators:
            if not listing.labelled:
                yield LabelRow(guid, listing.code_of(" ".join(tags), guid, number), number)
                continue
            votes = _votes(listing, tags, guid, number)
            texts, images = votes[order.index("text") :: 2], votes[order.index("image") :: 2]
            label = _label(listing, texts, images, data) if votes else UNKNOWN
            yield LabelRow(guid, label, number)
        elif line.strip():
            cause = f"expected an ID and {2 * annotators} labels"
            listing.note(number, cause, f"{cause}, received {line.rstrip()!r}")
    if data.rows == "agreeing":
        listing.remark("only rows whose text and picture have the same label (rows = 'agreeing')")


def _cells(line: str, separators: str = "") -> list[str]:
    """The stripped cells of a line."""
    return [cell.strip() for cell in re.split(f"[\t,;{separators}]+", line.strip())]


def _votes(listing: Listing, tags: Sequence[str], guid: str, line: int) -> list[str]:
    """Class names of labels; empty, with a problem noted, if one is unknown."""
    codes = []
    for tag in tags:
        code = listing.code_of(tag, guid, line, needed=True)
        if code is None or code == UNKNOWN:
            return []
        codes.append(code)
    return [listing.classes[code] for code in codes]


def _label(
    listing: Listing, texts: Sequence[str], images: Sequence[str], data: DataSettings
) -> int:
    """Code of a row's merged label, or `DROPPED`; updates the listing's counts."""
    text, image = majority(texts), majority(images)
    label = merge(text, image) if text and image else None
    if label is None:
        return DROPPED
    if text == image:
        listing.agreeing = (listing.agreeing or 0) + 1
    elif data.rows == "agreeing":
        return DROPPED
    else:
        listing.merged += 1
    return listing.classes.index(label)
