"""Remembers the hashes of files, so that unchanged ones are not read again.

``CACHE/data/.stats-SPLIT-DIGEST`` holds, for one split of one data folder, a mark of every file
that was read and the sha256 of its content. A mark is a hash of the file's path, size, inode and
times; the change time, which no program can set, moves with every write. The file belongs to this
machine: without it, or if it is damaged, everything is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.files.disk import CLOCK_TICK, make_folders, write_atomically
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.key_table import KeyTable

from .table import IntArray, SampleTable

NO_MARK = bytes(16)
"""Mark of a file that must be read: no other file has it."""
_MAGIC = b"mmsa file stats1"
_MAX_BYTES = 4 << 30
_RECORD = len(NO_MARK) + 32
"""Bytes of a mark and a sha256."""

Bytes = NDArray[np.uint8]
CachedText = tuple[str, str, bytes | None]
"""A text, its sha256 (hex) and its `files.text_key`."""


def file_mark(name: str, status: os.stat_result, checked_at: float, use: str) -> bytes:
    """The mark of a file; `NO_MARK` if a later write may leave the same size and times.

    Args:
        name: Path relative to its folder.
        status: Result of ``stat``.
        checked_at: Time before that call, in seconds since the epoch.
        use: What the hash depends on besides the file's bytes.
    """
    if max(status.st_mtime_ns, status.st_ctime_ns) >= 1e9 * (checked_at - CLOCK_TICK):
        return NO_MARK
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    state = f"{use}\0{name}\0{numbers}"
    return hashlib.blake2b(state.encode(), digest_size=len(NO_MARK)).digest()


class FileHashCache:
    """The hashes of a split's files, kept from command to command.

    Args:
        cache: Root folder of the store.
        root: The data folder.
        split: One of `SPLITS`.
        stored: The split in the store, which has the texts of unchanged files.
        rehash: Whether to start empty, so that every file is read.
    """

    def __init__(
        self,
        cache: Path,
        root: Path,
        split: str,
        stored: SampleTable | None = None,
        *,
        rehash: bool = False,
    ) -> None:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
        self.path = cache / "data" / f".stats-{split}-{name}"
        self._records = np.empty((0, _RECORD), np.uint8) if rehash else _read(self.path)
        self._marks = KeyTable(len(NO_MARK))
        self._marks.add(self._records[:, : len(NO_MARK)])
        self._used = np.zeros(len(self._records), np.bool_)
        self._fresh = bytearray()
        self._lock = threading.Lock()
        self._texts = stored.with_folder(None) if stored is not None and stored.has_texts else None
        self._by_text = KeyTable(32)
        if self._texts is not None:
            self._by_text.add(self._texts.digests("text"))

    def digests(self, marks: Sequence[bytes]) -> list[bytes | None]:
        """The sha256 of each file, 32 bytes; None if its mark is unknown."""
        rows = self._find(marks)
        digests = self._records[:, len(NO_MARK) :]
        return [digests[row].tobytes() if row >= 0 else None for row in rows.tolist()]

    def texts(self, marks: Sequence[bytes]) -> list[CachedText | None]:
        """The text of each file; None if its mark is unknown or its text not in the store."""
        if self._texts is None:
            return [None] * len(marks)
        rows = self._find(marks)
        hits = np.flatnonzero(rows >= 0)
        sample_rows = self._by_text.find(self._records[rows[hits], len(NO_MARK) :])
        hits, sample_rows = hits[sample_rows >= 0], sample_rows[sample_rows >= 0]
        texts: list[CachedText | None] = [None] * len(marks)
        for index, sample in zip(hits.tolist(), self._texts.take(sample_rows), strict=True):
            assert sample.text is not None  # `has_texts`
            texts[index] = (sample.text, sample.text_sha256, sample.text_key)
        return texts

    def note(self, marks: Sequence[bytes], digests: Sequence[bytes]) -> None:
        """Adds files by their marks, or keeps known ones; files with an empty digest are left out.

        Args:
            marks: Marks of `file_mark`.
            digests: sha256 of each file, 32 bytes.
        """
        rows = self._find(marks)
        self._used[rows[rows >= 0]] = True
        fresh = b"".join(
            mark + digest
            for mark, digest, row in zip(marks, digests, rows.tolist(), strict=True)
            if row < 0 and mark != NO_MARK and digest
        )
        with self._lock:
            self._fresh += fresh

    def save(self) -> None:
        """Writes the files that were noted; a store that cannot be written stays as it is."""
        if not self._fresh and self._used.all():
            return
        fresh = np.frombuffer(self._fresh, np.uint8).reshape(-1, _RECORD)
        content = np.concatenate(
            [np.zeros((1, _RECORD), np.uint8), self._records[self._used], fresh]
        )
        digest = hashlib.sha256(content[1:].data).digest()
        content[0] = np.frombuffer(_MAGIC + digest, np.uint8)
        with contextlib.suppress(OSError):
            make_folders(self.path.parent)
            write_atomically(self.path, content.data)

    def _find(self, marks: Sequence[bytes]) -> IntArray:
        keys = np.frombuffer(b"".join(marks), np.uint8).reshape(-1, len(NO_MARK))
        rows = self._marks.find(keys)
        rows[~keys.any(1)] = -1
        return rows


def _read(path: Path) -> Bytes:
    """Reads the records, (files, 48); none if the file is absent or damaged."""
    try:
        data = np.frombuffer(read_regular(path, _MAX_BYTES, links=False), np.uint8)
    except (OSError, ValueError):
        data = np.empty(0, np.uint8)
    head, body = data[:_RECORD].tobytes(), data[_RECORD:]
    if head != _MAGIC + hashlib.sha256(body.data).digest() or len(body) % _RECORD:
        body = np.empty(0, np.uint8)
    return body.reshape(-1, _RECORD)
