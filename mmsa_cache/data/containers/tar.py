"""Pictures in an uncompressed tar, read by their offsets."""

from __future__ import annotations

import hashlib
import os
import tarfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import open_regular, read_at
from mmsa_cache.key_table import KeyTable

from .container import require_picture, too_large_error

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "zstd -d"}
_KEY = 16
_BATCH = 4096
_MOST_HEADER = 1 << 20
"""Most bytes of one read of a header, names included."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar."""

    name: str
    """Without a leading ``./``."""
    offset: int
    size: int


def members(
    file: BufferedReader, name: str, passed_over: Callable[[str], None] = lambda name: None
) -> Iterator[TarMember]:
    """Yields the regular files of an open tar in order.

    Args:
        file: The tar.
        name: Its file name.
        passed_over: Called with the name of each member that is skipped: links, devices, sparse
            files, and names that are absolute or contain ``..``. Folders are skipped silently.

    Raises:
        ValueError: The file is compressed, no tar, or truncated.
    """
    command = _COMPRESSED.get(file.read(2))
    if command is not None:
        tar_name = name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") + ".tar"
        target = tar_name if tar_name != name else f"plain-{name}"
        raise ValueError(f"it is compressed; unpack it: {command} -c {name} > {target}")
    file.seek(0)
    end = os.fstat(file.fileno()).st_size
    try:
        with tarfile.TarFile(name=name, fileobj=_Limited(file), errors="surrogateescape") as tar:  # type: ignore[arg-type]
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                plain = os.path.normpath(info.name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse() or not _is_inside(info.name):
                    passed_over(info.name)
                    continue
                if info.offset_data + info.size > end:
                    raise ValueError(f"it is cut off within {plain!r}")
                yield TarMember(plain, info.offset_data, info.size)
    except (tarfile.TarError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"it is no tar, or damaged: {error}") from error


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


class _Limited:
    """Limits each read of an open file to the size of a header."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, _MOST_HEADER))

    def close(self) -> None:
        """Does nothing: the file's owner closes it."""


class TarPictures:
    """Pictures by name; of equal names the first."""

    def __init__(self, path: Path) -> None:
        self._names = KeyTable(_KEY)
        extents: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
        batch: list[TarMember] = []
        with open_regular(path) as file:
            for member in members(file, path.name):
                batch.append(member)
                if len(batch) == _BATCH:
                    extents.append(self._add_names(batch))
                    batch = []
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._extents = np.concatenate([*extents, self._add_names(batch)])

    def _add_names(self, batch: list[TarMember]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        keys = b"".join(_key(member.name) for member in batch)
        self._names.add(np.frombuffer(keys, np.uint8).reshape(-1, _KEY))
        return np.array([(m.offset, m.size) for m in batch], np.int64).reshape(-1, 2)

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of a member."""
        key = np.frombuffer(_key(member), np.uint8).reshape(1, _KEY)
        row = int(self._names.find(key)[0])
        if row < 0:
            raise BadFileError("missing", "no picture is there")
        offset, size = self._extents[row].tolist()
        if size > limit:
            raise too_large_error(size, limit)
        return require_picture(read_at(self._descriptor, size, offset), limit)


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()
