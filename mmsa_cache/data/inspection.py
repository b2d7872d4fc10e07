"""Inspects every file of a data folder, for `mmsa check`.

A faulty label file, text or picture becomes a problem, and the inspection continues. Files are read
with the functions that extraction uses.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.layouts.listing import LABELS, UNKNOWN, LabelRow, Listing
from mmsa_cache.data.layouts.rows import classes_of, list_rows
from mmsa_cache.errors import BadFileError, DataError
from mmsa_cache.names import SPLITS, class_problem
from mmsa_cache.native.cores import usable_cores

from .duplicates import perceptual_hash
from .files import LEADS_OUT, PICTURE_SUFFIXES
from .pairs import Fault, image_format
from .picture_paths import picture_name
from .reader import PairReader, empty_row_error, is_valid
from .unlisted import find_unlisted

LABEL_FILE = "label file"
"""Reason of all problems of label files."""
CODECS = ("ascii", "utf-8", "gb18030")
"""Encodings that the summary tries; texts are read with the declared one only."""
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HASH_SIDE = 64
"""Fewest pixels of a picture's short side for its perceptual hash."""
_BATCH = 32
"""Rows that one thread inspects at a time."""


class DecodedPicture(Protocol):
    """A decoded picture and properties of its file."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) RGB"""

    @property
    def width(self) -> int:
        """Of the file, in pixels."""

    @property
    def height(self) -> int:
        """Of the file, in pixels."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Conversions on decoding."""


_Row = tuple[str, PairReader, LabelRow]
"""A row with its split and reader."""
ReadPicture = Callable[[bytes, str, int], DecodedPicture]
"""Bytes, name and fewest pixels of the short side → picture. Raises BadFileError."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that must be repaired, removed or set aside, or a fault of a label file."""

    split: str
    guid: str
    """Empty for problems of a label file."""
    reason: str
    message: str
    fatal: bool
    """Whether ``extract --on-bad skip`` fails too."""


@dataclass(slots=True)
class InspectedPost:
    """The inspection of one row; fields of an unusable half keep their defaults."""

    split: str
    guid: str
    line: int
    label: int | None
    faults: list[Fault] = field(default_factory=list)
    text: str | None = None
    """The complete text, stripped."""
    codecs: tuple[str, ...] = ()
    """Members of `CODECS` in which the text file is valid."""
    bom: bool = False
    undecodable: int = 0
    """Number of invalid sequences in the declared encoding."""
    picture: Path | None = None
    picture_bytes: int = 0
    picture_sha256: str | None = None
    kind: str = ""
    """Format of the content."""
    misnamed: bool = False
    """Whether the file name's suffix is of another format."""
    width: int = 0
    height: int = 0
    changes: tuple[str, ...] = ()
    """Conversions on decoding, see `extract.inputs.decode.CHANGES`."""
    decoded: bool = False
    perceptual_hash: int | None = None
    """None if the picture is flat or not decoded."""


@dataclass(slots=True)
class Inspection:
    """The inspection of a data folder."""

    root: Path
    layout: str
    classes: tuple[str, ...]
    posts: list[InspectedPost] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    """Names of texts and pictures in the data's folders that no label file names."""
    dropped: int = 0
    """Rows with contradicting labels (raw MVSA)."""
    labels: dict[str, Counter[int | None]] = field(default_factory=dict)
    """Split → class code → number of rows."""
    notes: list[str] = field(default_factory=list)
    """Remarks on the label files, for users."""

    def add_problems(self, split: str, messages: Iterable[str]) -> None:
        """Adds problems of a label file."""
        self.problems += [Problem(split, "", LABEL_FILE, message, True) for message in messages]

    def add_error(self, split: str, error: DataError) -> None:
        """Adds the problems of an error that ended the reading of a label file."""
        self.add_problems(split, error.problems or [f"{error.message} {error.hint}".strip()])


def inspect(
    data: DataSettings,
    read_picture: ReadPicture | None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Inspects every row of every split.

    Args:
        data: The data folder and how its texts are read.
        read_picture: Decodes a picture as extraction does. None opens neither texts nor pictures,
            and there are no posts.
        advance: Called with the number of rows just inspected and the number of all rows.

    Raises:
        SettingsError: No data folder is set.
    """
    root, data = data.folder, data.model_copy(update={"max_chars": None})
    inspection = Inspection(data.root or root, "", data.classes or LABELS)
    try:
        layout = find_layout(data)
        inspection.layout = layout.name
    except DataError as error:
        inspection.add_error("", error)
        return inspection
    with contextlib.suppress(DataError):  # listing the rows reports the same error
        inspection.classes = classes_of(data)
    for name in inspection.classes:
        if (reason := class_problem(name)) is not None:
            message = f"the label {name[:100]!r} cannot be the name of a class: {reason}"
            inspection.add_problems("", [message])
    all_rows: list[_Row] = []
    listings: list[Listing] = []
    for split in layout.splits or SPLITS[:1]:  # without splits, listing one reports why
        try:
            listing = list_rows(data, split, inspection.classes, files=read_picture is not None)
            reader = PairReader(listing, data)
            rows, inspection.labels[split] = _read_listing(listing, keep=read_picture is not None)
        except DataError as error:
            inspection.add_error(split, error)
            continue
        _add_listing(inspection, split, listing)
        listings.append(listing)
        all_rows += [(split, reader, row) for row in rows]
    if read_picture is None:
        return inspection
    inspection.posts = _inspect_all(all_rows, read_picture, advance)
    inspection.problems += [
        Problem(post.split, post.guid, fault.reason, fault.message, fault.reason == LEADS_OUT)
        for post in inspection.posts
        for fault in post.faults
    ]
    pictures = {post.picture for post in inspection.posts if post.picture is not None}
    inspection.unlisted = find_unlisted(layout, listings, pictures)
    return inspection


def _add_listing(inspection: Inspection, split: str, listing: Listing) -> None:
    """Adds the counts, notes and problems of a split's listing."""
    inspection.layout = listing.layout
    inspection.dropped += listing.dropped
    inspection.notes += [f"{split}: {note}" for note in listing.notes]
    if listing.agreeing is not None:
        inspection.notes.append(
            f"{split}: text and picture have the same label in {listing.agreeing} of "
            f"{inspection.labels[split].total() + listing.dropped} rows; rows = 'agreeing' under "
            "[data] keeps those alone"
        )
    inspection.add_problems(split, listing.problems)


def _read_listing(listing: Listing, *, keep: bool) -> tuple[list[LabelRow], Counter[int | None]]:
    """Reads a listing: its rows, if they are kept, and the number of rows of each label."""
    rows: list[LabelRow] = []
    count: Counter[int | None] = Counter()
    for row in listing.rows():
        row.label = None if row.label == UNKNOWN else row.label
        count[row.label] += 1
        if keep:
            rows.append(row)
    return rows, count


def _inspect_all(
    rows: Sequence[_Row], read_picture: ReadPicture, advance: Callable[[int, int], None]
) -> list[InspectedPost]:
    batches = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]

    def inspect_batch(batch: Sequence[_Row]) -> list[InspectedPost]:
        return [_inspect_row(split, reader, row, read_picture) for split, reader, row in batch]

    threads = ThreadPoolExecutor(usable_cores())
    posts: list[InspectedPost] = []
    try:
        for inspected in threads.map(inspect_batch, batches):
            posts += inspected
            advance(len(inspected), len(rows))
    finally:
        threads.shutdown(cancel_futures=True)
    return posts


def _inspect_row(
    split: str, reader: PairReader, row: LabelRow, read_picture: ReadPicture
) -> InspectedPost:
    post = InspectedPost(split, row.guid, row.line, row.label)
    try:
        _inspect_text(post, reader, row)
    except BadFileError as error:
        post.faults.append(reader.fault(row, error))
    try:
        _inspect_picture(post, reader, row, read_picture)
    except BadFileError as error:
        post.faults.append(reader.fault(row, error))
    return post


def _inspect_text(post: InspectedPost, reader: PairReader, row: LabelRow) -> None:
    data = reader.read_text_bytes(row)
    if data is not None:
        post.codecs = tuple(codec for codec in CODECS if is_valid(data, codec))
        post.bom = data.startswith(_BOMS)
    post.undecodable = reader.undecodable(row, data)
    post.text = reader.text(row, data)


def _inspect_picture(
    post: InspectedPost, reader: PairReader, row: LabelRow, read_picture: ReadPicture
) -> None:
    path_and_bytes = reader.picture(row)
    if path_and_bytes is None:
        if not post.text and not post.faults:
            raise empty_row_error(row)
        return
    path, data = path_and_bytes
    post.picture, post.picture_bytes = path, len(data)
    post.picture_sha256 = hashlib.sha256(data).hexdigest()
    post.kind = image_format(data) or ""
    suffix = path.suffix.lower()  # a picture in a table has none
    post.misnamed = bool(suffix) and PICTURE_SUFFIXES.get(suffix) != post.kind
    picture = read_picture(data, picture_name(path), _HASH_SIDE)
    post.decoded = True
    post.width, post.height, post.changes = picture.width, picture.height, picture.changes
    post.perceptual_hash = perceptual_hash(picture.pixels)
