"""Inspects every file of a data folder, for `mmsa check`.

A faulty label file, text or picture becomes a problem, and the inspection continues. Files are read
by the same functions as in extraction.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
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
from .reader import PairReader, is_valid, neither
from .unlisted import find_unlisted

LABEL_FILE = "label file"
"""Reason of everything that is wrong with a label file."""
CODECS = ("ascii", "utf-8", "gb18030")
"""Encodings that texts are tried in, for the summary; only the declared one is used."""
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_LOOK = 64
"""Pixels that a picture's short side keeps for its perceptual hash, at least."""
_PIECE = 32
"""Rows that one thread looks at at a time."""


class DecodedPicture(Protocol):
    """A decoded picture and what it was."""

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
        """What decoding does to it."""


ReadPicture = Callable[[bytes, str, int], DecodedPicture]
"""Bytes, name and the pixels that the short side must keep → picture. Raises BadFileError."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must be mended, taken out or set aside."""

    split: str
    guid: str
    """Empty where it is the label file's."""
    reason: str
    message: str
    fatal: bool
    """Whether even ``extract --on-bad skip`` ends with it."""


@dataclass(slots=True)
class InspectedPost:
    """What was found out about one row; what cannot be used is absent."""

    split: str
    guid: str
    line: int
    label: int | None
    faults: list[Fault] = field(default_factory=list)
    text: str | None = None
    """Whole, stripped."""
    codecs: tuple[str, ...] = ()
    """Those of `CODECS` in which a text file is valid."""
    bom: bool = False
    undecodable: int = 0
    """Places of a text that are not valid in the declared encoding."""
    picture: Path | None = None
    picture_bytes: int = 0
    picture_sha256: str | None = None
    kind: str = ""
    """Format by content."""
    misnamed: bool = False
    """Whether the file's name says another format."""
    width: int = 0
    height: int = 0
    changes: tuple[str, ...] = ()
    """What decoding does to it, see `extract.inputs.decode.CHANGES`."""
    decoded: bool = False
    look: int | None = None
    """Perceptual hash; None where the picture is flat or not decoded."""


@dataclass(slots=True)
class Inspection:
    """Everything that was found in a data folder."""

    root: Path
    layout: str
    classes: tuple[str, ...]
    posts: list[InspectedPost] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    """Texts and pictures beside the listed ones that no label file names."""
    dropped: int = 0
    """Rows whose labels contradict each other (raw MVSA)."""
    labels: dict[str, Counter[int | None]] = field(default_factory=dict)
    """Rows of each label's code by split."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of how label files were read."""

    def note(self, split: str, error: DataError) -> None:
        """Adds what ended the reading of a label file."""
        for message in error.problems or [f"{error.message} {error.hint}".strip()]:
            self.problems.append(Problem(split, "", LABEL_FILE, message, True))


def inspect(
    data: DataSettings,
    read_picture: ReadPicture | None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Looks at every row of every split.

    Args:
        data: The data folder, and how its texts are read.
        read_picture: Decodes a picture as extraction does; None: neither texts nor pictures are
            opened, and there are no posts.
        advance: Called with the rows just looked at and the rows in all.

    Raises:
        SettingsError: No data folder is set.
    """
    root, data = data.folder, data.model_copy(update={"max_chars": None})
    found = Inspection(data.root or root, "", data.classes or LABELS)
    try:
        layout = find_layout(data)
        found.layout = layout.name
    except DataError as error:
        found.note("", error)
        return found
    with contextlib.suppress(DataError):  # listing the rows meets the same error and keeps it
        found.classes = classes_of(data)
    for name in found.classes:
        if (why := class_problem(name)) is not None:
            message = f"the label {name[:100]!r} cannot be the name of a class: {why}"
            found.problems.append(Problem("", "", LABEL_FILE, message, True))
    work: list[tuple[str, PairReader, LabelRow]] = []
    listings: list[Listing] = []
    for split in layout.splits or SPLITS[:1]:  # where there is no split, listing says why
        try:
            listing = list_rows(data, split, found.classes, files=read_picture is not None)
            reader = PairReader(listing, data)
            rows, found.labels[split] = _listed(listing, keep=read_picture is not None)
        except DataError as error:
            found.note(split, error)
            continue
        _take(found, split, listing)
        listings.append(listing)
        work += [(split, reader, row) for row in rows]
    if read_picture is None:
        return found
    found.posts = _look_at_all(work, read_picture, advance)
    for post in found.posts:
        for fault in post.faults:
            fatal = fault.reason == LEADS_OUT
            found.problems.append(
                Problem(post.split, post.guid, fault.reason, fault.message, fatal)
            )
    pictures = {post.picture for post in found.posts if post.picture is not None}
    found.unlisted = find_unlisted(layout, listings, pictures)
    return found


def _take(found: Inspection, split: str, listing: Listing) -> None:
    """Adds what the listing of a split says, but for its rows."""
    found.layout = listing.layout
    found.dropped += listing.dropped
    found.notes += [f"{split}: {note}" for note in listing.notes]
    if listing.agreeing is not None:
        found.notes.append(
            f"{split}: text and picture have the same label in {listing.agreeing} of "
            f"{found.labels[split].total() + listing.dropped} rows; rows = 'agreeing' under "
            "[data] keeps those alone"
        )
    for message in listing.problems:
        found.problems.append(Problem(split, "", LABEL_FILE, message, True))


def _listed(listing: Listing, *, keep: bool) -> tuple[list[LabelRow], Counter[int | None]]:
    """The rows of a listing, if they are to be kept, and how many there are of each label."""
    rows: list[LabelRow] = []
    count: Counter[int | None] = Counter()
    for row in listing.rows():
        row.label = None if row.label == UNKNOWN else row.label
        count[row.label] += 1
        if keep:
            rows.append(row)
    return rows, count


def _look_at_all(
    work: Sequence[tuple[str, PairReader, LabelRow]],
    read_picture: ReadPicture,
    advance: Callable[[int, int], None],
) -> list[InspectedPost]:
    pieces = [work[i : i + _PIECE] for i in range(0, len(work), _PIECE)]

    def look_at(piece: Sequence[tuple[str, PairReader, LabelRow]]) -> list[InspectedPost]:
        return [_look_at(split, reader, row, read_picture) for split, reader, row in piece]

    pool = ThreadPoolExecutor(usable_cores())
    posts: list[InspectedPost] = []
    try:
        for done in pool.map(look_at, pieces):
            posts += done
            advance(len(done), len(work))
    finally:
        pool.shutdown(cancel_futures=True)
    return posts


def _look_at(
    split: str, reader: PairReader, row: LabelRow, read_picture: ReadPicture
) -> InspectedPost:
    post = InspectedPost(split, row.guid, row.line, row.label)
    for look in (_look_at_text, functools.partial(_look_at_picture, read_picture=read_picture)):
        try:
            look(post, reader, row)
        except BadFileError as error:
            post.faults.append(reader.fault(row, error))
    return post


def _look_at_text(post: InspectedPost, reader: PairReader, row: LabelRow) -> None:
    data = reader.text_bytes(row)
    if data is not None:
        post.codecs = tuple(codec for codec in CODECS if is_valid(data, codec))
        post.bom = data.startswith(_BOMS)
    post.undecodable = reader.undecodable(row, data)
    post.text = reader.text(row, data)


def _look_at_picture(
    post: InspectedPost, reader: PairReader, row: LabelRow, *, read_picture: ReadPicture
) -> None:
    found = reader.picture(row)
    if found is None:
        if not post.text and not post.faults:
            raise neither(row)
        return
    path, data = found
    post.picture, post.picture_bytes = path, len(data)
    post.picture_sha256 = hashlib.sha256(data).hexdigest()
    post.kind = image_format(data) or ""
    named = path.suffix.lower()  # a picture in a table has no ending
    post.misnamed = bool(named) and PICTURE_SUFFIXES.get(named) != post.kind
    picture = read_picture(data, picture_name(path), _LOOK)
    post.decoded = True
    post.width, post.height, post.changes = picture.width, picture.height, picture.changes
    post.look = perceptual_hash(picture.pixels)
