"""Which files have not changed since they were last hashed: they are not opened again.

``CACHE/data/.stats-SPLIT-DIGEST`` keeps, for one split of one data folder, a mark of every file
that was read and the hash that reading it gave. A mark is a hash of the file's path, size, inode
and times; the change time, which no program can set, moves with every write. The file is this
machine's own: without it, or where it is broken, everything is read.
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
"""Mark of a file that must be read."""
_MAGIC = b"mmsa file stats1"
_MAX_BYTES = 4 << 30
_RECORD = len(NO_MARK) + 32
"""A mark and a sha256."""

Bytes = NDArray[np.uint8]
CachedText = tuple[str, str, bytes | None]
"""A text, its sha256 (hex) and its key."""


def file_mark(name: str, found: os.stat_result, looked: float, use: str) -> bytes:
    """The mark of a file; `NO_MARK` where a write that is still to come may give the same one.

    Args:
        name: Path relative to its folder.
        found: What the file is.
        looked: Seconds since the epoch, from before ``found`` was asked for.
        use: What its hash depends on beside its bytes.
    """
    if max(found.st_mtime_ns, found.st_ctime_ns) >= 1e9 * (looked - CLOCK_TICK):
        return NO_MARK
    numbers = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
    state = f"{use}\0{name}\0{numbers}"
    return hashlib.blake2b(state.encode(), digest_size=len(NO_MARK)).digest()


class FileHashCache:
    """What earlier commands found in the files of a split.

    Args:
        cache: Root folder of the store.
        root: The data folder.
        split: One of `SPLITS`.
        stored: The split as it is stored: texts of unchanged files are taken from there.
        rehash: Read every file all the same, and remember what is found.
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
        """sha256 of each file that is known by its mark, 32 bytes."""
        rows = self._find(marks)
        digests = self._records[:, len(NO_MARK) :]
        return [digests[row].tobytes() if row >= 0 else None for row in rows.tolist()]

    def texts(self, marks: Sequence[bytes]) -> list[CachedText | None]:
        """The text of each file that is known by its mark and whose text is stored."""
        if self._texts is None:
            return [None] * len(marks)
        rows = self._find(marks)
        hit = np.flatnonzero(rows >= 0)
        place = self._by_text.places(self._records[rows[hit], len(NO_MARK) :])
        hit, place = hit[place >= 0], place[place >= 0]
        found: list[CachedText | None] = [None] * len(marks)
        for at, sample in zip(hit.tolist(), self._texts.take(place), strict=True):
            assert sample.text is not None  # `has_texts`
            found[at] = (sample.text, sample.text_sha256, sample.text_key)
        return found

    def note(self, marks: Sequence[bytes], digests: Sequence[bytes]) -> None:
        """Remembers files by their marks, known ones too; an empty digest is none."""
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
        """Writes what was noted, where the store may be written."""
        if not self._fresh and self._used.all():
            return
        fresh = np.frombuffer(self._fresh, np.uint8).reshape(-1, _RECORD)
        whole = np.concatenate([np.zeros((1, _RECORD), np.uint8), self._records[self._used], fresh])
        digest = hashlib.sha256(whole[1:].data).digest()
        whole[0] = np.frombuffer(_MAGIC + digest, np.uint8)
        with contextlib.suppress(OSError):
            make_folders(self.path.parent)
            write_atomically(self.path, whole.data)

    def _find(self, marks: Sequence[bytes]) -> IntArray:
        wanted = np.frombuffer(b"".join(marks), np.uint8).reshape(-1, len(NO_MARK))
        rows = self._marks.places(wanted)
        rows[~wanted.any(1)] = -1
        return rows


def _read(path: Path) -> Bytes:
    """The records of a file; none where it is not what was written."""
    try:
        data = np.frombuffer(read_regular(path, _MAX_BYTES, links=False), np.uint8)
    except (OSError, ValueError):
        data = np.empty(0, np.uint8)
    head, body = data[:_RECORD].tobytes(), data[_RECORD:]
    if head != _MAGIC + hashlib.sha256(body.data).digest() or len(body) % _RECORD:
        body = np.empty(0, np.uint8)
    return body.reshape(-1, _RECORD)
