"""Image-text pairs on disk: from the rows of a data folder to samples.

Which rows there are, in which layout, ``layouts`` says. Reading collects every problem before it
gives up. A row whose text or picture cannot be used is a bad row, which may be set aside; what is
wrong with a label file, or a path that leads out of the folder, ends everything.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.layouts.listing import (
    UNKNOWN,
    UNLABELLED,
    LabelRow,
    Listing,
    raise_problems,
)
from mmsa_cache.data.layouts.rows import classes_of, list_rows
from mmsa_cache.errors import DataError

from .file_hashes import FileHashCache
from .files import EMPTY_FILE, EMPTY_TEXT, MISSING, strip_text, text_key
from .pairs import ABSENT, BadRow, Sample, read_valid_picture
from .reader import PairReader
from .split_summary import SplitSummary
from .table import UNKNOWN_LABEL, SampleTable, TableBuilder

_THREADS = 4
_PIECE = 256
"""Rows that one thread reads at a time."""
_WINDOW = 16 * _PIECE
"""Rows that are objects at a time."""
_CHARACTERS = 1 << 24
"""Of the texts of a window, about."""
_SHOWN = 10
"""Rows of one fault that an error names."""
REPAIR_HINT = (
    "Repair the files or remove their rows from the label file; or set them aside: "
    "mmsa extract --on-bad skip. mmsa check lists everything."
)
ABSENCE_REASONS = {EMPTY_FILE, EMPTY_TEXT, MISSING}
"""Reasons why a half may be meant to be absent."""
ABSENCE_HINT = (
    'Posts of a text or a picture alone count with --missing allow ([data] missing = "allow").'
)


@dataclass(frozen=True, slots=True)
class SplitScan:
    """One split as it was found, in the order of its label file."""

    split: str
    listing: Listing
    """Its rows are in ``samples`` and ``bad``."""
    samples: SampleTable
    bad: list[BadRow]
    replaced: frozenset[str]
    """Rows of whose texts some bytes were replaced, not being valid in the encoding."""

    @property
    def rows(self) -> int:
        """Rows, good and bad."""
        return len(self.samples) + len(self.bad)

    def raise_bad(self, bad: Sequence[BadRow]) -> None:
        """Ends with bad rows, if there are any.

        Raises:
            DataError: Names every one of them.
        """
        reasons = {fault.reason for row in bad for fault in row.faults}
        hint = (
            REPAIR_HINT if reasons.isdisjoint(ABSENCE_REASONS) else f"{REPAIR_HINT} {ABSENCE_HINT}"
        )
        raise_problems(fault_messages(bad), self.listing.folder, hint)

    def summarize(self, samples: SampleTable) -> SplitSummary:
        """What was kept, merged and dropped.

        Args:
            samples: Those that are kept; the other rows were set aside.
        """
        codes, counts = np.unique(samples.labels, return_counts=True)
        count = dict(zip(codes.tolist(), counts.tolist(), strict=True))
        tags = {**dict(enumerate(self.listing.classes)), UNKNOWN_LABEL: UNLABELLED}
        kept = {tag: count[code] for code, tag in tags.items() if code in count}
        aside = self.rows - len(samples)
        replaced = tuple(guid for guid in samples.guids if guid in self.replaced)
        listing = self.listing
        others = (listing.merged, listing.dropped, aside)
        return SplitSummary(
            listing.layout, self.split, kept, *others, replaced, tuple(listing.notes)
        )


def scan_split(
    data: DataSettings, split: str, known: FileHashCache | None = None, *, labelled: bool = True
) -> SplitScan:
    """Reads one split in the order of its label file (unlabelled pairs: by guid).

    Texts are read completely; pictures are hashed and their format is checked by content, but they
    are decoded only by stage one.

    Args:
        data: The data folder, in any layout of ``layouts``, and how its texts are read.
        split: One of `SPLITS`.
        known: Files that are not read again; gets to know those that are.
        labelled: Whether labels are looked at.

    Raises:
        SettingsError: No data folder is set.
        DataError: Something is wrong with the label file, or a path leads out of the folder; every
            problem of the label file and of the pairs is named.
    """
    listing = list_rows(data, split, classes_of(data), labelled=labelled)
    reader = PairReader(listing, data, known)
    builder, bad = TableBuilder(reader.root), []
    with ThreadPoolExecutor(_THREADS) as pool:
        for window in _windows(row for row in listing.rows() if row.label != UNKNOWN):
            pieces = [window[i : i + _PIECE] for i in range(0, len(window), _PIECE)]
            results = [result for piece in pool.map(reader.read, pieces) for result in piece]
            builder.add([result for result in results if isinstance(result, Sample)])
            bad += [result for result in results if isinstance(result, BadRow)]
    if known is not None:
        known.save()
    if listing.problems or any(row.fatal for row in bad):
        where = listing.source if listing.problems else listing.folder
        raise_problems([*listing.problems, *fault_messages(bad)], where)
    return SplitScan(split, listing, builder.table(), bad, frozenset(reader.replaced))


def fault_messages(bad: Sequence[BadRow]) -> list[str]:
    """What is wrong with bad rows: of each reason the first, and how many more there are."""
    said: list[str] = []
    count: Counter[str] = Counter()
    for fault in (fault for row in bad for fault in row.faults):
        count[fault.reason] += 1
        if count[fault.reason] <= _SHOWN:
            said.append(fault.message)
    more = ((reason, rows - _SHOWN) for reason, rows in count.items() if rows > _SHOWN)
    return said + [f"… and {rows} more: {reason}" for reason, rows in more]


def _windows(rows: Iterator[LabelRow]) -> Iterator[list[LabelRow]]:
    """Some rows at a time: few of long texts."""
    window: list[LabelRow] = []
    characters = 0
    for row in rows:
        window.append(row)
        characters += len(row.text or "")
        if len(window) == _WINDOW or characters > _CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def single_sample(text: str | None, image_path: Path | None) -> Sample:
    """Makes a sample of one text and one picture file, for prediction; one may be missing.

    Raises:
        DataError: The picture is missing or not an allowed format; the text is empty or no Unicode.
    """
    if text is not None and not strip_text(text):
        raise DataError("The text is empty.", "Leave --text out to predict from a picture alone.")
    picture = ABSENT
    if image_path is not None:
        if not os.path.isfile(image_path):  # noqa: PTH113  (names that no file can have too)
            raise DataError(
                f"There is no picture {image_path}.", "Give an existing file with --image."
            )
        data = read_valid_picture(image_path.parent.resolve(), image_path.name)
        picture = hashlib.sha256(data).hexdigest()
    try:
        digest = ABSENT if text is None else hashlib.sha256(strip_text(text).encode()).hexdigest()
    except UnicodeEncodeError as error:  # bytes of a command line, or JSON with half a character
        raise DataError(f"The text is no Unicode text: {error}.", "Write it in UTF-8.") from error
    text = strip_text(text or "")
    return Sample("pair", None, text, image_path, digest, picture, text_key(text))
