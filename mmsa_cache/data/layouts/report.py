"""The report's layout: label files of ``guid,tag`` rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsa_cache.data.files import MAX_LABEL_BYTES
from mmsa_cache.errors import DataError
from mmsa_cache.untrusted import read_plain

from .listing import LABELS, LabelRow, Listing, raise_problems

HEADER = "guid,tag"


def read_labels(path: Path, classes: tuple[str, ...] = LABELS) -> list[LabelRow]:
    """Reads a ``guid,tag`` file (UTF-8, with or without BOM, any line ending).

    Args:
        path: The label file.
        classes: Class names; a class's code is its place.

    Raises:
        DataError: Every malformed line at once.
    """
    listing = Listing(path, "report", classes)
    list_report(listing)
    if not listing.rows and not listing.problems:
        listing.note(0, "no rows after the header")
    raise_problems(listing.problems, path)
    return listing.rows


def list_report(listing: Listing) -> None:
    try:
        lines = label_lines(listing, read_plain(listing.source, MAX_LABEL_BYTES))
    except OSError as error:
        raise DataError(f"Cannot read {listing.source}: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"Cannot read {listing.source}: {error}.") from error
    if lines and lines[0].strip() != HEADER:
        seen = repr(lines[0]) if lines != [""] else "an empty file"
        listing.note(1, f"expected the header '{HEADER}', received {seen}")
    for number, line in numbered_rows(lines):
        columns = line.split(",")
        if len(columns) == 2:
            listing.add(LabelRow(columns[0].strip(), None, number), columns[1])
        else:
            listing.note(number, f"expected 2 columns, received {len(columns)}")


def label_lines(listing: Listing, data: bytes) -> list[str]:
    """The lines of a label file in UTF-8; none when it cannot be decoded."""
    try:
        return data.decode("utf-8-sig").splitlines() or [""]
    except UnicodeDecodeError as error:
        listing.note(0, f"not UTF-8 at byte {error.start}; save the file as UTF-8")
    return []


def numbered_rows(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The lines after the header that hold something, numbered."""
    return ((n, line) for n, line in enumerate(lines[1:], start=2) if line.strip())
