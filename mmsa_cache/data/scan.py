"""Reads the splits of a data folder: from label files, texts and pictures to samples.

The rows come from ``layouts``. All problems are collected before anything raises. A row whose text
or picture cannot be used is a bad row, which may be set aside; a faulty label file and a path that
leads out of the folder are fatal.
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
from mmsa_cache.data.layouts.listing import UNKNOWN, UNLABELLED, LabelRow, Listing, raise_problems
from mmsa_cache.data.layouts.rows import classes_of, list_rows
from mmsa_cache.errors import DataError

from .file_hashes import FileHashCache
from .files import EMPTY_FILE, EMPTY_TEXT, MISSING, strip_text, text_key
from .pairs import ABSENT, BadRow, Sample, read_valid_picture
from .reader import PairReader
from .split_summary import SplitSummary
from .table import UNKNOWN_LABEL, SampleTable, TableBuilder

_THREADS = 4
_BATCH = 256
"""Rows that one thread reads at a time."""
_WINDOW = 16 * _BATCH
"""Rows that are Python objects at a time."""
_CHARACTERS = 1 << 24
"""Characters of a window's texts, about."""
_SHOWN = 10
"""Rows that an error names for each reason."""
SET_ASIDE_HINT = (
    "Repair the files or remove their rows from the label file; or set them aside: "
    "mmsa extract --on-bad skip. mmsa check lists everything."
)
ABSENCE_REASONS = {EMPTY_FILE, EMPTY_TEXT, MISSING}
"""Reasons of a row whose text or picture may be absent on purpose."""
ABSENCE_HINT = (
    'Posts of a text or a picture alone count with --missing allow ([data] missing = "allow").'
)


@dataclass(frozen=True, slots=True)
class SplitScan:
    """The rows of one split, in the order of its label file."""

    split: str
    listing: Listing
    """Has been read to its end; its rows are in ``samples`` and ``bad``."""
    samples: SampleTable
    bad: list[BadRow]
    replaced: frozenset[str]
    """Guids of rows in whose texts bytes not valid in the encoding were replaced."""

    @property
    def rows(self) -> int:
        """Number of rows, good and bad."""
        return len(self.samples) + len(self.bad)

    def raise_bad(self, bad: Sequence[BadRow]) -> None:
        """Raises if there are bad rows.

        Raises:
            DataError: Lists their faults.
        """
        reasons = {fault.reason for row in bad for fault in row.faults}
        hint = SET_ASIDE_HINT + f" {ABSENCE_HINT}" * (not reasons.isdisjoint(ABSENCE_REASONS))
        raise_problems(fault_messages(bad), self.listing.folder, hint)

    def summarize(self, samples: SampleTable) -> SplitSummary:
        """Counts the rows.

        Args:
            samples: Samples that are kept; all other rows count as set aside.
        """
        codes, counts = np.unique(samples.labels, return_counts=True)
        by_code = dict(zip(codes.tolist(), counts.tolist(), strict=True))
        tags = {**dict(enumerate(self.listing.classes)), UNKNOWN_LABEL: UNLABELLED}
        label_counts = {tag: by_code[code] for code, tag in tags.items() if code in by_code}
        return SplitSummary(
            layout=self.listing.layout,
            split=self.split,
            label_counts=label_counts,
            merged=self.listing.merged,
            dropped=self.listing.dropped,
            aside=self.rows - len(samples),
            replaced=tuple(guid for guid in samples.guids if guid in self.replaced),
            notes=tuple(self.listing.notes),
        )


def scan_split(
    data: DataSettings, split: str, hashes: FileHashCache | None = None, *, labelled: bool = True
) -> SplitScan:
    """Reads one split in the order of its label file (unlabelled pairs: by guid).

    Texts are read completely. Pictures are hashed and their format is checked by content; only
    stage one decodes them.

    Args:
        data: The data folder and how its texts are read.
        split: One of `SPLITS`.
        hashes: Files to be skipped if unchanged; updated with those that are read.
        labelled: Whether labels are read.

    Raises:
        SettingsError: No data folder is set.
        DataError: The label file is faulty, or a path leads out of the folder; lists every problem
            of the label file and of the pairs.
    """
    listing = list_rows(data, split, classes_of(data), labelled=labelled)
    reader = PairReader(listing, data, hashes)
    builder, bad = TableBuilder(reader.root), []
    with ThreadPoolExecutor(_THREADS) as threads:
        for window in _windows(row for row in listing.rows() if row.label != UNKNOWN):
            batches = [window[i : i + _BATCH] for i in range(0, len(window), _BATCH)]
            results = [result for batch in threads.map(reader.read, batches) for result in batch]
            builder.add([result for result in results if isinstance(result, Sample)])
            bad += [result for result in results if isinstance(result, BadRow)]
    if hashes is not None:
        hashes.save()
    if listing.problems or any(row.fatal for row in bad):
        where = listing.path if listing.problems else listing.folder
        raise_problems([*listing.problems, *fault_messages(bad)], where)
    return SplitScan(split, listing, builder.table(), bad, frozenset(reader.replaced))


def fault_messages(bad: Sequence[BadRow]) -> list[str]:
    """Messages of the first faults of each reason, and a count of the rest."""
    messages: list[str] = []
    counts: Counter[str] = Counter()
    for fault in (fault for row in bad for fault in row.faults):
        counts[fault.reason] += 1
        if counts[fault.reason] <= _SHOWN:
            messages.append(fault.message)
    hidden = ((reason, rows - _SHOWN) for reason, rows in counts.items() if rows > _SHOWN)
    return messages + [f"… and {rows} more: {reason}" for reason, rows in hidden]


def _windows(rows: Iterator[LabelRow]) -> Iterator[list[LabelRow]]:
    """Groups rows, fewer if their texts are long."""
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
    """Makes a sample of a text and a picture file, for prediction; one of them may be None.

    Raises:
        DataError: The picture is missing or of a foreign format; the text is empty or not Unicode.
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
