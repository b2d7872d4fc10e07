"""Reads the texts and pictures of the rows of a label file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.layouts.listing import LabelRow, Listing
from mmsa_cache.errors import BadFileError

from .file_hashes import NO_MARK, CachedText, FileHashCache, file_mark
from .files import (
    EMPTY_TEXT,
    IMAGE_SUFFIXES,
    MAX_TEXT_BYTES,
    MISSING,
    FileNames,
    check_encoding,
    decode,
    is_unicode,
    read_inside,
    strip_text,
    text_key,
)
from .pairs import ABSENT, MAX_IMAGE_BYTES, BadRow, Fault, Sample, read_valid_picture
from .picture_paths import MEMBER_SEPARATOR, stat_picture_inside


class PairReader:
    """Reads the texts and pictures of single rows.

    Args:
        listing: Names the folder of the pairs, or of a table.
        data: How texts are read.
        known: Files that are not read again.

    Raises:
        DataError: Unknown encoding.
    """

    def __init__(
        self, listing: Listing, data: DataSettings, known: FileHashCache | None = None
    ) -> None:
        check_encoding(data.encoding)
        self._data = data
        self._folder = listing.folder
        self._base = listing.folder.resolve()
        self._names = FileNames(self._base)
        self.root = data.folder.resolve()
        """Where the paths of pictures start in a `SampleTable`."""
        self._pictures = self.root / listing.folder.relative_to(data.folder)
        self._known = known
        self._in_turn = threading.Lock()
        self._halves = data.missing == "allow"
        self._may_be_empty = data.allow_empty_text or self._halves
        how = (data.encoding, data.encoding_errors, data.max_chars, data.allow_empty_text)
        self._text_use = f"text {how}{' or none' * self._halves}"
        self.replaced: list[str] = []
        """Rows read so far of whose texts some bytes were replaced."""

    def read(self, rows: Sequence[LabelRow]) -> list[Sample | BadRow]:
        """Reads rows; a bad one names what is wrong with either half.

        Files that are known are not opened; that they lie inside the folder is checked again.
        """
        names = [self._picture_name(row) for row in rows]
        # Those inside one file are read one after the other, in its order.
        inside = any(MEMBER_SEPARATOR in name for name in names if name)
        with self._in_turn if inside else contextlib.nullcontext():
            return self._read_all(rows, names)

    def _read_all(
        self, rows: Sequence[LabelRow], names: Sequence[str | None]
    ) -> list[Sample | BadRow]:
        known = self._known
        if known is None:
            return [self._read(row, name) for row, name in zip(rows, names, strict=True)]
        text_marks = [self._text_mark(row) for row in rows]
        image_marks = [self._mark(name, MAX_IMAGE_BYTES, "image") for name in names]
        texts, pictures = known.texts(text_marks), known.digests(image_marks)
        replaced_before = len(self.replaced)
        found = [self._read(*item) for item in zip(rows, names, texts, pictures, strict=True)]
        replaced = set(self.replaced[replaced_before:])  # said again next time: read again
        text_digests = ["" if one.guid in replaced else one.text_sha256 for one in found]
        known.note(text_marks, [bytes.fromhex(digest) for digest in text_digests])
        known.note(image_marks, [bytes.fromhex(one.image_sha256) for one in found])
        return found

    def _read(
        self,
        row: LabelRow,
        name: str | None,
        known: CachedText | None = None,
        known_picture: bytes | None = None,
    ) -> Sample | BadRow:
        faults: list[Fault] = []
        text, path, text_sha256, image_sha256, key = "", None, "", "", None
        try:
            text, text_sha256, key = known or self._whole_text(row)
        except BadFileError as error:
            faults.append(self.fault(row, error))
        try:
            if name is None and self._halves:
                image_sha256 = ABSENT
            else:
                digest = known_picture or hashlib.sha256(self._picture(row, name)).digest()
                path, image_sha256 = self._path(name or ""), digest.hex()
        except BadFileError as error:
            faults.append(self.fault(row, error))
        if text_sha256 == image_sha256 == ABSENT:
            faults.append(self.fault(row, neither(row)))
        if faults:
            return BadRow(row.guid, row.line, tuple(faults), text_sha256, image_sha256)
        return Sample(row.guid, row.label, text, path, text_sha256, image_sha256, key)

    def _whole_text(self, row: LabelRow) -> CachedText:
        data = self.text_bytes(row)
        text = self.text(row, data)
        if "\ufffd" in text and self.undecodable(row, data):
            self.replaced.append(row.guid)
        text = text[: self._data.max_chars]
        if not text and self._halves:
            return text, ABSENT, None
        return text, hashlib.sha256(text.encode()).hexdigest(), text_key(text)

    def _text_mark(self, row: LabelRow) -> bytes:
        if row.text is not None:
            return NO_MARK
        return self._mark(self._text_name(row), MAX_TEXT_BYTES, self._text_use)

    def _mark(self, name: str | None, limit: int, use: str) -> bytes:
        looked = time.time()
        try:
            follow = self._data.follow_links
            found = (
                stat_picture_inside(self._base, name, limit, follow_links=follow) if name else None
            )
        except BadFileError:
            found = None  # reading it says what is wrong
        return NO_MARK if found is None or name is None else file_mark(name, found, looked, use)

    def fault(self, row: LabelRow, error: BadFileError) -> Fault:
        """An error with its place in the table."""
        where = f"{row.table}:{row.line}: " if row.table else ""
        return Fault(error.reason, f"{where}{error.message}")

    def text_bytes(self, row: LabelRow) -> bytes | None:
        """The bytes of a row's text file, none where it may lack one; None where a table holds its
        text.

        Raises:
            BadFileError: It cannot be read.
        """
        if row.text is not None:
            return None
        name = self._text_name(row)
        if self._halves and not os.path.lexists(self._base / name):
            return b""
        return read_inside(
            self._base,
            name,
            MAX_TEXT_BYTES,
            allow_empty=self._may_be_empty,
            follow_links=self._data.follow_links,
        )

    def _text_name(self, row: LabelRow) -> str:
        name = f"{row.stem}.txt"
        return self._names.first([name]) or name

    def text(self, row: LabelRow, data: bytes | None) -> str:
        """A row's complete text, stripped.

        Args:
            row: The row.
            data: What `text_bytes` gave.

        Raises:
            BadFileError: It is empty, not valid in the encoding, or holds what no text holds.
        """
        if data is None:
            if row.flaw and not (row.flaw == EMPTY_TEXT and self._may_be_empty):
                raise BadFileError(row.flaw, row.flaw)
            return row.text or ""
        name = f"{row.stem}.txt"
        text = strip_text(decode(data, name, self._data.encoding, self._data.encoding_errors))
        if "\0" in text:
            raise BadFileError(
                "NUL bytes", f"{name}: holds NUL bytes; is it really {self._data.encoding} text?"
            )
        if not is_unicode(text):  # some codecs give them
            raise BadFileError("half a surrogate pair", f"{name}: holds half a surrogate pair")
        if not text and not self._may_be_empty:
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

    def picture(self, row: LabelRow) -> tuple[Path, bytes] | None:
        """Path and bytes of a row's picture, whose content is of an allowed format; None where it
        may lack one.

        Raises:
            BadFileError: It cannot be read, or is of a foreign format.
        """
        name = self._picture_name(row)
        if name is None and self._halves:
            return None
        content = self._picture(row, name)
        return self._path(name or ""), content

    def _picture(self, row: LabelRow, name: str | None) -> bytes:
        if name is None:
            what = f" {row.stem}.jpg in {self._folder}" if row.image is None else ""
            raise BadFileError(MISSING, f"{row.guid}: no picture{what}")
        return read_valid_picture(self._base, name, follow_links=self._data.follow_links)

    def _picture_name(self, row: LabelRow) -> str | None:
        """Name of a row's picture as it stands on disk; None where there is none."""
        if row.image is not None:
            return (self._names.first([row.image]) or row.image) if row.image else None
        return self._names.first([row.stem + suffix for suffix in IMAGE_SUFFIXES])

    def _path(self, name: str) -> Path:
        """Path of a picture that is inside the folder, without steps up."""
        if ".." in name.split("/"):
            name = str((self._base / name).resolve().relative_to(self._base))
        return self._pictures / name


def neither(row: LabelRow) -> BadFileError:
    """A row with neither a text nor a picture."""
    return BadFileError("empty row", f"{row.guid}: neither a text nor a picture")


def is_valid(data: bytes, encoding: str) -> bool:
    """Whether every byte is."""
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True
