"""Image-text pairs on disk: from the rows of a data folder to samples.

Which rows there are, in which layout, ``adapters`` says. Reading collects every problem before it
gives up. A row whose text or picture cannot be used is a bad row, which may be set aside; what is
wrong with a label file, or a path that leads out of the folder, ends everything.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .adapters import (
    EMPTY_TEXT,
    IMAGE_SUFFIXES,
    LABELS,
    LEADS_OUT,
    MAX_TEXT_BYTES,
    SPLITS,
    UNLABELLED,
    Intake,
    LabelRow,
    Listing,
    check_encoding,
    decode,
    list_rows,
    raise_problems,
    read_inside,
    read_labels,
    strip_text,
)
from .errors import BadFileError, DataError

__all__ = [
    "LABELS",
    "SPLITS",
    "BadRow",
    "Fault",
    "Identity",
    "Intake",
    "LabelRow",
    "PairReader",
    "Sample",
    "Survey",
    "image_format",
    "intake",
    "is_valid",
    "read_labels",
    "read_split",
    "single_sample",
    "survey",
]

MAX_IMAGE_BYTES = 64 << 20

Identity = tuple[str, str, str]
"""guid, hash of the text, hash of the picture; a hash is empty where there is nothing to use."""
SET_ASIDE = (
    "Mend the files or take their rows out of the label file; or set them aside: "
    "mmsa extract --on-bad skip. mmsa check lists everything."
)

# Content decides what a picture is, never its name: anything else is refused unopened.
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM")),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One post."""

    guid: str
    label: int | None
    """Class code, or None where the label file says ``null``."""
    text: str
    """Decoded text, stripped and cut to the wanted length."""
    image_path: Path
    text_sha256: str
    """Hash of the decoded text (hex)."""
    image_sha256: str
    """Hash of the picture's bytes (hex)."""

    @property
    def identity(self) -> Identity:
        """What changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a text or a picture."""

    reason: str
    """The same few words for every file with this fault."""
    message: str
    """What is wrong, and where."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row whose text or picture, or both, cannot be used."""

    guid: str
    line: int
    faults: tuple[Fault, ...]
    text_sha256: str = ""
    """As of a `Sample`; empty where the text cannot be used."""
    image_sha256: str = ""
    """As of a `Sample`; empty where the picture cannot be read or is of a foreign format."""

    @property
    def identity(self) -> Identity:
        """What changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256

    @property
    def fatal(self) -> bool:
        """Whether it must not be set aside."""
        return any(fault.reason == LEADS_OUT for fault in self.faults)

    @property
    def messages(self) -> list[str]:
        return [fault.message for fault in self.faults]


def image_format(head: bytes) -> str | None:
    """Names the format of a picture from its first bytes; None when it is not an allowed one."""
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def read_split(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    classes: tuple[str, ...] = LABELS,
    allow_empty_text: bool = False,
) -> list[Sample]:
    """The samples that ``intake`` gives.

    Raises:
        DataError: As ``intake`` does.
    """
    return intake(
        root,
        split,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
        classes=classes,
        allow_empty_text=allow_empty_text,
    )[0]


def intake(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    classes: tuple[str, ...] = LABELS,
    allow_empty_text: bool = False,
) -> tuple[list[Sample], Intake]:
    """Reads one split of which every row must be good; see `survey`.

    Returns:
        The samples, and what was kept, merged and dropped.

    Raises:
        DataError: With every problem of the label file and of the pairs at once.
    """
    found = survey(
        root,
        split,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
        classes=classes,
        allow_empty_text=allow_empty_text,
    )
    found.raise_bad(found.bad)
    return found.samples, found.intake(found.samples)


@dataclass(frozen=True, slots=True)
class Survey:
    """One split as it was found, in the order of its label file."""

    split: str
    listing: Listing
    samples: list[Sample]
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
        messages = [message for row in bad for message in row.messages]
        raise_problems(messages, self.listing.folder, SET_ASIDE)

    def intake(self, samples: Sequence[Sample]) -> Intake:
        """What was kept, merged and dropped.

        Args:
            samples: Those that are kept; the other rows were set aside.
        """
        count = Counter(sample.label for sample in samples)
        tags: dict[int | None, str] = {**dict(enumerate(self.listing.classes)), None: UNLABELLED}
        kept = {tag: count[label] for label, tag in tags.items() if count[label]}
        aside = self.rows - len(samples)
        replaced = tuple(s.guid for s in samples if s.guid in self.replaced)
        listing = self.listing
        counts = (listing.merged, listing.dropped, aside)
        return Intake(listing.layout, self.split, kept, *counts, replaced)


def survey(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    classes: tuple[str, ...] = LABELS,
    allow_empty_text: bool = False,
) -> Survey:
    """Reads one split in the order of its label file (unlabelled pairs: by guid).

    Texts are read whole; pictures are hashed and their format is checked by content, but they
    are decoded only by stage one.

    Args:
        root: The data folder, in any layout of ``adapters``.
        split: ``train`` or ``test``.
        encoding: Of the texts.
        encoding_errors: ``strict`` or ``replace``.
        max_chars: Texts are cut to this many characters.
        classes: Class names; a class's code is its place.
        allow_empty_text: A row may have a picture only.

    Raises:
        DataError: Something is wrong with the label file, or a path leads out of the folder; every
            problem of the label file and of the pairs is named.
    """
    listing = list_rows(
        root, split, encoding=encoding, encoding_errors=encoding_errors, classes=classes
    )
    reader = PairReader.of(
        listing,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
        allow_empty_text=allow_empty_text,
    )
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(reader.read, listing.rows))
    bad = [result for result in results if isinstance(result, BadRow)]
    if listing.problems or any(row.fatal for row in bad):
        messages = [message for row in bad for message in row.messages]
        where = listing.source if listing.problems else listing.folder
        raise_problems([*listing.problems, *messages], where)
    samples = [result for result in results if isinstance(result, Sample)]
    return Survey(split, listing, samples, bad, frozenset(reader.replaced))


class PairReader:
    """Reads the texts and pictures of single rows.

    Args:
        folder: Where the pairs lie, or where a table's image paths start.
        encoding: Of the texts.
        encoding_errors: ``strict`` or ``replace``.
        max_chars: Texts are cut to this many characters.
        allow_empty_text: A row may have a picture only.
        table: Name of the table that holds the texts, for messages.

    Raises:
        DataError: Unknown encoding.
    """

    def __init__(
        self,
        folder: Path,
        *,
        encoding: str = "utf-8",
        encoding_errors: str = "strict",
        max_chars: int | None = None,
        allow_empty_text: bool = False,
        table: str = "",
    ) -> None:
        check_encoding(encoding)
        self.folder = folder
        self.base = folder.resolve()
        self.names = frozenset(entry.name for entry in folder.iterdir())
        self._encoding, self._errors = encoding, encoding_errors
        self._max_chars = max_chars
        self._allow_empty = allow_empty_text
        self._table = table
        self.replaced: list[str] = []
        """Rows read so far of whose texts some bytes were replaced."""

    @classmethod
    def of(
        cls,
        listing: Listing,
        *,
        encoding: str,
        encoding_errors: str,
        max_chars: int | None,
        allow_empty_text: bool,
    ) -> PairReader:
        """The reader of a listing's rows."""
        return cls(
            listing.folder,
            encoding=encoding,
            encoding_errors=encoding_errors,
            max_chars=max_chars,
            allow_empty_text=allow_empty_text,
            table=listing.source.name if listing.layout == "tables" else "",
        )

    def read(self, row: LabelRow) -> Sample | BadRow:
        """Reads one row; a bad one names what is wrong with either half."""
        faults: list[Fault] = []
        text, path, text_hash, image_hash = "", Path(), "", ""
        try:
            data = self.text_bytes(row)
            text = self.text(row, data)
            if "\ufffd" in text and self.undecodable(row, data):
                self.replaced.append(row.guid)
            text = text[: self._max_chars]
            text_hash = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        except BadFileError as error:
            faults.append(self.fault(row, error))
        try:
            path, content = self.picture(row)
            image_hash = hashlib.sha256(content).hexdigest()
        except BadFileError as error:
            faults.append(self.fault(row, error))
        if faults:
            return BadRow(row.guid, row.line, tuple(faults), text_hash, image_hash)
        return Sample(row.guid, row.label, text, path, text_hash, image_hash)

    def fault(self, row: LabelRow, error: BadFileError) -> Fault:
        """An error with its place in the table."""
        where = f"{self._table}:{row.line}: " if self._table else ""
        return Fault(error.reason, f"{where}{error.message}")

    def text_bytes(self, row: LabelRow) -> bytes | None:
        """The bytes of a row's text file; None where its text stands in a table.

        Raises:
            BadFileError: It cannot be read.
        """
        if row.text is not None:
            return None
        return read_inside(
            self.base, f"{row.guid}.txt", MAX_TEXT_BYTES, allow_empty=self._allow_empty
        )

    def text(self, row: LabelRow, data: bytes | None) -> str:
        """A row's whole text, stripped.

        Args:
            row: The row.
            data: What `text_bytes` gave.

        Raises:
            BadFileError: It is empty, not valid in the encoding, or holds NUL bytes.
        """
        if data is None:
            if row.flaw and not (row.flaw == EMPTY_TEXT and self._allow_empty):
                raise BadFileError(row.flaw, row.flaw)
            return row.text or ""
        name = f"{row.guid}.txt"
        text = strip_text(decode(data, name, self._encoding, self._errors))
        if "\0" in text:
            raise BadFileError(
                "NUL bytes", f"{name}: holds NUL bytes; is it really {self._encoding} text?"
            )
        if not text and not self._allow_empty:
            raise BadFileError(
                EMPTY_TEXT, f"{name}: {EMPTY_TEXT} (allowed with --allow-empty-text)"
            )
        return text

    def undecodable(self, row: LabelRow, data: bytes | None) -> int:
        """Places of a text that are not valid in the encoding.

        Those of a table were replaced when it was read, and are told by what replaced them.
        """
        if data is None:
            return (row.text or "").count("\ufffd") if self._errors == "replace" else 0
        if is_valid(data, self._encoding):
            return 0
        return data.decode(self._encoding, "replace").count("\ufffd")

    def picture(self, row: LabelRow) -> tuple[Path, bytes]:
        """Path and bytes of a row's picture, whose content is of an allowed format.

        Raises:
            BadFileError: It cannot be read, or is of a foreign format.
        """
        name = row.image or next(
            (row.guid + suffix for suffix in IMAGE_SUFFIXES if row.guid + suffix in self.names),
            None,
        )
        if name is None:
            raise BadFileError("missing", f"{row.guid}: no picture {row.guid}.jpg in {self.folder}")
        return self.base / name, _picture_bytes(self.base, name)


def is_valid(data: bytes, encoding: str) -> bool:
    """Whether every byte is."""
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def single_sample(text: str | None, image_path: Path | None) -> Sample:
    """Makes a sample of one text and one picture file, for prediction; one may be missing.

    Raises:
        DataError: The picture is missing or not an allowed format, or the text is empty.
    """
    if text is not None and not strip_text(text):
        raise DataError("The text is empty.", "Leave --text out to predict from a picture alone.")
    picture = ""
    if image_path is not None:
        if not image_path.is_file():
            raise DataError(
                f"There is no picture {image_path}.", "Give an existing file with --image."
            )
        data = _picture_bytes(image_path.parent.resolve(), image_path.name)
        picture = hashlib.sha256(data).hexdigest()
    text = strip_text(text or "")
    return Sample(
        "pair", None, text, image_path or Path(), hashlib.sha256(text.encode()).hexdigest(), picture
    )


def _picture_bytes(base: Path, name: str) -> bytes:
    """Bytes of a picture in ``base``; its content must be of an allowed format."""
    data = read_inside(base, name, MAX_IMAGE_BYTES)
    if image_format(data[:16]) is None:
        kinds = ", ".join(kind for kind, _ in _SIGNATURES)
        raise BadFileError(
            "foreign format", f"{name}: content is none of {kinds} (begins with {data[:8]!r})"
        )
    return data
