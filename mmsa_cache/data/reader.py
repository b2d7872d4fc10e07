"""Reads the texts and pictures of label file rows."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
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
    """Reads the texts and pictures of rows.

    Args:
        listing: Gives the folder of the pairs, or of a table.
        data: How texts are read.
        hashes: Files to be skipped if unchanged.

    Raises:
        DataError: Unknown encoding.
    """

    def __init__(
        self, listing: Listing, data: DataSettings, hashes: FileHashCache | None = None
    ) -> None:
        check_encoding(data.encoding)
        self._data = data
        self._folder = listing.folder
        self._base = listing.folder.resolve()
        self._names = FileNames(self._base)
        self.root = data.folder.resolve()
        """Where the paths of pictures start in a `SampleTable`."""
        self._pictures = self.root / listing.folder.relative_to(data.folder)
        self._hashes = hashes
        self._member_lock = threading.Lock()
        self._allow_missing = data.missing == "allow"
        self._allow_empty_text = data.allow_empty_text or self._allow_missing
        options = (data.encoding, data.encoding_errors, data.max_chars, data.allow_empty_text)
        self._text_use = f"text {options}{' or none' * self._allow_missing}"
        self.replaced: list[str] = []
        """Guids of rows read so far in whose texts invalid bytes were replaced."""

    def read(self, rows: Sequence[LabelRow]) -> list[Sample | BadRow]:
        """Reads rows; a bad row lists the faults of both halves.

        Unchanged files are not opened, but it is checked again that they lie inside the folder.
        """
        names = [self._picture_name(row) for row in rows]
        # Pictures inside one file are read one after the other, in its order.
        inside = any(MEMBER_SEPARATOR in name for name in names if name)
        with self._member_lock if inside else contextlib.nullcontext():
            return self._read_all(rows, names)

    def _read_all(
        self, rows: Sequence[LabelRow], names: Sequence[str | None]
    ) -> list[Sample | BadRow]:
        hashes = self._hashes
        if hashes is None:
            return [self._read(row, name) for row, name in zip(rows, names, strict=True)]
        text_marks = [self._text_mark(row) for row in rows]
        image_marks = [self._mark(name, MAX_IMAGE_BYTES, "image") for name in names]
        texts, pictures = hashes.texts(text_marks), hashes.digests(image_marks)
        replaced_before = len(self.replaced)
        results = list(
            itertools.starmap(self._read, zip(rows, names, texts, pictures, strict=True))
        )
        replaced = set(self.replaced[replaced_before:])  # to be reported next time: read again
        text_digests = ["" if result.guid in replaced else result.text_sha256 for result in results]
        hashes.note(text_marks, [bytes.fromhex(digest) for digest in text_digests])
        hashes.note(image_marks, [bytes.fromhex(result.image_sha256) for result in results])
        return results

    def _read(
        self,
        row: LabelRow,
        name: str | None,
        known_text: CachedText | None = None,
        known_digest: bytes | None = None,
    ) -> Sample | BadRow:
        faults: list[Fault] = []
        text, path, text_sha256, image_sha256, key = "", None, "", "", None
        try:
            text, text_sha256, key = known_text or self._read_text(row)
        except BadFileError as error:
            faults.append(self.fault(row, error))
        try:
            if name is None and self._allow_missing:
                image_sha256 = ABSENT
            else:
                digest = known_digest or hashlib.sha256(self._read_picture(row, name)).digest()
                path, image_sha256 = self._path(name or ""), digest.hex()
        except BadFileError as error:
            faults.append(self.fault(row, error))
        if text_sha256 == image_sha256 == ABSENT:
            faults.append(self.fault(row, empty_row_error(row)))
        if faults:
            return BadRow(row.guid, row.line, tuple(faults), text_sha256, image_sha256)
        return Sample(row.guid, row.label, text, path, text_sha256, image_sha256, key)

    def _read_text(self, row: LabelRow) -> CachedText:
        data = self.read_text_bytes(row)
        text = self.text(row, data)
        if "\ufffd" in text and self.undecodable(row, data):
            self.replaced.append(row.guid)
        text = text[: self._data.max_chars]
        if not text and self._allow_missing:
            return text, ABSENT, None
        return text, hashlib.sha256(text.encode()).hexdigest(), text_key(text)

    def _text_mark(self, row: LabelRow) -> bytes:
        if row.text is not None:
            return NO_MARK
        return self._mark(self._text_name(row), MAX_TEXT_BYTES, self._text_use)

    def _mark(self, name: str | None, limit: int, use: str) -> bytes:
        checked_at = time.time()
        try:
            follow = self._data.follow_links
            status = (
                stat_picture_inside(self._base, name, limit, follow_links=follow) if name else None
            )
        except BadFileError:
            status = None  # reading it reports the fault
        return (
            NO_MARK if status is None or name is None else file_mark(name, status, checked_at, use)
        )

    def fault(self, row: LabelRow, error: BadFileError) -> Fault:
        """Turns an error into a fault that names the row's line in its table."""
        where = f"{row.table}:{row.line}: " if row.table else ""
        return Fault(error.reason, f"{where}{error.message}")

    def read_text_bytes(self, row: LabelRow) -> bytes | None:
        """Reads a row's text file.

        Returns:
            The bytes, empty if there is no file and none is required; None if a table holds the
            text.

        Raises:
            BadFileError: The file cannot be read.
        """
        if row.text is not None:
            return None
        name = self._text_name(row)
        if self._allow_missing and not os.path.lexists(self._base / name):
            return b""
        return read_inside(
            self._base,
            name,
            MAX_TEXT_BYTES,
            allow_empty=self._allow_empty_text,
            follow_links=self._data.follow_links,
        )

    def _text_name(self, row: LabelRow) -> str:
        name = f"{row.stem}.txt"
        return self._names.find_first([name]) or name

    def text(self, row: LabelRow, data: bytes | None) -> str:
        """A row's complete text, stripped.

        Args:
            row: The row.
            data: The result of `read_text_bytes`.

        Raises:
            BadFileError: The text is empty, not valid in the encoding, or holds NUL bytes or lone
                surrogates.
        """
        if data is None:
            if row.flaw and not (row.flaw == EMPTY_TEXT and self._allow_empty_text):
                raise BadFileError(row.flaw, row.flaw)
            return row.text or ""
        name = f"{row.stem}.txt"
        text = strip_text(decode(data, name, self._data.encoding, self._data.encoding_errors))
        if "\0" in text:
            raise BadFileError(
                "NUL bytes", f"{name}: holds NUL bytes; is it really {self._data.encoding} text?"
            )
        if not is_unicode(text):  # some codecs decode to lone surrogates
            raise BadFileError("half a surrogate pair", f"{name}: holds half a surrogate pair")
        if not text and not self._allow_empty_text:
            raise BadFileError(
                EMPTY_TEXT, f"{name}: {EMPTY_TEXT} (allowed with --allow-empty-text)"
            )
        return text

    def undecodable(self, row: LabelRow, data: bytes | None) -> int:
        """Number of invalid sequences in a text; in a table's text, of replacement characters."""
        if data is None:
            return 0 if self._data.encoding_errors == "strict" else (row.text or "").count("\ufffd")
        if is_valid(data, self._data.encoding):
            return 0
        return data.decode(self._data.encoding, "replace").count("\ufffd")

    def picture(self, row: LabelRow) -> tuple[Path, bytes] | None:
        """Path and bytes of a row's picture; None if it has none and none is required.

        Raises:
            BadFileError: It cannot be read, or its content is of a foreign format.
        """
        name = self._picture_name(row)
        if name is None and self._allow_missing:
            return None
        content = self._read_picture(row, name)
        return self._path(name or ""), content

    def _read_picture(self, row: LabelRow, name: str | None) -> bytes:
        if name is None:
            expected = f" {row.stem}.jpg in {self._folder}" if row.image is None else ""
            raise BadFileError(MISSING, f"{row.guid}: no picture{expected}")
        return read_valid_picture(self._base, name, follow_links=self._data.follow_links)

    def _picture_name(self, row: LabelRow) -> str | None:
        """Name of a row's picture as on disk; None if there is none."""
        if row.image is not None:
            return (self._names.find_first([row.image]) or row.image) if row.image else None
        return self._names.find_first([row.stem + suffix for suffix in IMAGE_SUFFIXES])

    def _path(self, name: str) -> Path:
        """Path of a picture inside the folder, without ``..``."""
        if ".." in name.split("/"):
            name = str((self._base / name).resolve().relative_to(self._base))
        return self._pictures / name


def empty_row_error(row: LabelRow) -> BadFileError:
    """The error of a row with neither a text nor a picture."""
    return BadFileError("empty row", f"{row.guid}: neither a text nor a picture")


def is_valid(data: bytes, encoding: str) -> bool:
    """Whether bytes are valid in an encoding."""
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True
