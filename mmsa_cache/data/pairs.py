"""Single posts on disk: their text and their picture, read and checked.

Each fault has a reason, so that faults can be counted. Pictures are hashed
and their format is checked by content; they are decoded only by stage one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.layouts.listing import LabelRow, Listing
from mmsa_cache.disk import read_plain
from mmsa_cache.errors import BadFileError, DataError

from .files import (
    EMPTY_TEXT,
    IMAGE_SUFFIXES,
    LEADS_OUT,
    MAX_TEXT_BYTES,
    check_encoding,
    decode,
    read_inside,
    strip_text,
    text_key,
)

MAX_IMAGE_BYTES = 64 << 20

Identity = tuple[str, str, str]
"""guid, hash of the text, hash of the picture; a hash is empty where there is nothing to use."""
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
    text: str | None
    """Decoded text, stripped and cut to the wanted length; None where it is not at hand."""
    image_path: Path | None
    """None where the picture is not at hand."""
    text_sha256: str
    """Hash of the decoded text (hex)."""
    image_sha256: str
    """Hash of the picture's bytes (hex)."""
    text_key: bytes | None = None
    """See `files.text_key`."""

    @property
    def picture_name(self) -> str:
        """What messages call its picture."""
        return self.guid if self.image_path is None else self.image_path.name

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


class PairReader:
    """Reads the texts and pictures of single rows.

    Args:
        listing: Names the folder of the pairs, or of a table.
        data: How texts are read.

    Raises:
        DataError: Unknown encoding.
    """

    def __init__(self, listing: Listing, data: DataSettings) -> None:
        check_encoding(data.encoding)
        self._data = data
        self._folder = listing.folder
        self._base = listing.folder.resolve()
        self._names = frozenset(entry.name for entry in listing.folder.iterdir())
        self._table = listing.source.name if listing.layout == "tables" else ""
        self.replaced: list[str] = []
        """Rows read so far of whose texts some bytes were replaced."""

    def read(self, row: LabelRow) -> Sample | BadRow:
        """Reads one row; a bad one names what is wrong with either half."""
        faults: list[Fault] = []
        text, path, text_hash, image_hash = "", Path(), "", ""
        try:
            data = self.text_bytes(row)
            text = self.text(row, data)
            if "\ufffd" in text and self.undecodable(row, data):
                self.replaced.append(row.guid)
            text = text[: self._data.max_chars]
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
        return Sample(row.guid, row.label, text, path, text_hash, image_hash, text_key(text))

    def fault(self, row: LabelRow, error: BadFileError) -> Fault:
        """An error with its place in the table."""
        where = f"{self._table}:{row.line}: " if self._table else ""
        return Fault(error.reason, f"{where}{error.message}")

    def text_bytes(self, row: LabelRow) -> bytes | None:
        """The bytes of a row's text file; None where a table holds its text.

        Raises:
            BadFileError: It cannot be read.
        """
        if row.text is not None:
            return None
        return read_inside(
            self._base, f"{row.guid}.txt", MAX_TEXT_BYTES, allow_empty=self._data.allow_empty_text
        )

    def text(self, row: LabelRow, data: bytes | None) -> str:
        """A row's complete text, stripped.

        Args:
            row: The row.
            data: What `text_bytes` gave.

        Raises:
            BadFileError: It is empty, not valid in the encoding, or holds NUL bytes.
        """
        if data is None:
            if row.flaw and not (row.flaw == EMPTY_TEXT and self._data.allow_empty_text):
                raise BadFileError(row.flaw, row.flaw)
            return row.text or ""
        name = f"{row.guid}.txt"
        text = strip_text(decode(data, name, self._data.encoding, self._data.encoding_errors))
        if "\0" in text:
            raise BadFileError(
                "NUL bytes", f"{name}: holds NUL bytes; is it really {self._data.encoding} text?"
            )
        if not text and not self._data.allow_empty_text:
            raise BadFileError(
                EMPTY_TEXT, f"{name}: {EMPTY_TEXT} (allowed with --allow-empty-text)"
            )
        return text

    def undecodable(self, row: LabelRow, data: bytes | None) -> int:
        """Places of a text that are not valid in the encoding.

        A table's were replaced when it was read; the replacement characters are counted.
        """
        if data is None:
            return 0 if self._data.encoding_errors == "strict" else (row.text or "").count("\ufffd")
        if is_valid(data, self._data.encoding):
            return 0
        return data.decode(self._data.encoding, "replace").count("\ufffd")

    def picture(self, row: LabelRow) -> tuple[Path, bytes]:
        """Path and bytes of a row's picture, whose content is of an allowed format.

        Raises:
            BadFileError: It cannot be read, or is of a foreign format.
        """
        name = row.image or next(
            (row.guid + suffix for suffix in IMAGE_SUFFIXES if row.guid + suffix in self._names),
            None,
        )
        if name is None:
            raise BadFileError(
                "missing", f"{row.guid}: no picture {row.guid}.jpg in {self._folder}"
            )
        return self._base / name, picture_bytes(self._base, name)


def is_valid(data: bytes, encoding: str) -> bool:
    """Whether every byte is."""
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def picture_bytes(base: Path, name: str) -> bytes:
    """Bytes of a picture in ``base``; its content must be of an allowed format."""
    data = read_inside(base, name, MAX_IMAGE_BYTES)
    if image_format(data[:16]) is None:
        kinds = ", ".join(kind for kind, _ in _SIGNATURES)
        raise BadFileError(
            "foreign format", f"{name}: content is none of {kinds} (begins with {data[:8]!r})"
        )
    return data


def text_of(sample: Sample) -> str:
    """A sample's text.

    Raises:
        DataError: It is not at hand.
    """
    if sample.text is None:
        raise DataError(
            f"{sample.guid}: its text is not at hand; this store was shared without texts.",
            "Give the data folder with --data DIR.",
        )
    return sample.text


def picture_of(sample: Sample) -> bytes:
    """The bytes of a sample's picture: those that were hashed when the data was read.

    Raises:
        DataError: The picture is not at hand, or was removed or changed since.
    """
    if sample.image_path is None:
        raise DataError(
            f"{sample.guid}: its picture is not at hand.", "Give the data folder with --data DIR."
        )
    name = sample.picture_name
    try:
        data = read_plain(sample.image_path, MAX_IMAGE_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read any more ({error})") from error
    if hashlib.sha256(data).hexdigest() != sample.image_sha256:
        raise DataError(f"{name}: was changed after the data was read (run it again)")
    return data
