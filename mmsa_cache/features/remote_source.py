"""Features on another machine: read where they lie if they are seen there, else fetched once.

Files are taken by their hashes, never by their places alone, so that neither a store of the same
name nor a damaged copy is read for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmsa_cache.errors import CacheError, DamagedCacheError
from mmsa_cache.files.abandoned import TEMPORARY
from mmsa_cache.files.disk import (
    DISK,
    discard,
    explain_write_errors,
    make_folders,
    new_file,
    write_atomically,
)
from mmsa_cache.files.hashing import digest, file_sha256
from mmsa_cache.files.locks import hold_lock
from mmsa_cache.files.paths import resolve_declared
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.store.encoder import ENCODER
from mmsa_cache.store.index import INDEX, Index, IndexChange, ShardEntry
from mmsa_cache.store.shard_file import check_bytes
from mmsa_cache.store.verification import verify_changed

from .source import BankSource

Read = Callable[[Path, int, int], bytes]
"""Bytes of a file on the machine that has it: path, first byte, how many at most."""
_PIECE = 32 << 20
"""Bytes fetched at a time."""
_AGAIN = "Run the same command again; if it repeats: mmsa cache verify."
_MAX_ENCODER_BYTES = 1 << 20


def download_folder() -> Path:
    """Where a machine keeps what it fetched: ``$XDG_CACHE_HOME/mmsa``, else ``~/.cache/mmsa``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return resolve_declared(Path(base) if base else Path.home() / ".cache") / "mmsa"


@dataclass(frozen=True, slots=True)
class _Features:
    """The sealed features of an encoder, as their machine has them."""

    folder: Path
    encoder: bytes
    """``encoder.json``"""
    entries: tuple[ShardEntry, ...]

    @classmethod
    def of(cls, folder: Path) -> _Features:
        encoder = read_regular(folder / ENCODER, _MAX_ENCODER_BYTES)
        return cls(folder, encoder, tuple(Index.read(folder).entries.values()))

    def here(self, read: Read, keep: Path) -> Path:
        """The folder to read on this machine.

        Raises:
            DamagedCacheError: What was fetched is not what was sealed.
            DiskError: It cannot be kept.
        """
        shards = [entry.sha256 for entry in self.entries]
        name = digest({"encoder": self.encoder.decode(), "shards": shards})[:16]
        place = keep.joinpath(name, *self.folder.parts[-2:])  # named as a store names it
        with explain_write_errors(keep):
            make_folders(keep)
        with hold_lock(keep / f".{name}.lock", _wait):
            if self._is_seen(keep / f"{name}.json"):
                return self.folder
            with explain_write_errors(place):
                make_folders(place)
            with contextlib.suppress(DamagedCacheError):  # nothing is there yet, or too little
                verify_changed(place, self.entries)
                if (place / INDEX).exists():
                    return place
            self._fetch(place, read)
        return place

    def _is_seen(self, note: Path) -> bool:
        """Whether this very store, whole and undamaged, lies at the same path here."""
        with contextlib.suppress(OSError, ValueError, CacheError):
            if read_regular(self.folder / ENCODER, _MAX_ENCODER_BYTES) != self.encoder:
                return False
            if not set(self.entries) <= set(Index.read(self.folder).entries.values()):
                return False
            verify_changed(self.folder, self.entries, note)
            return True
        return False

    def _fetch(self, place: Path, read: Read) -> None:
        for entry in self.entries:
            try:
                check_bytes(place, entry)
            except DamagedCacheError:
                source = self.folder / entry.file
                _fetched(source, place / entry.file, entry.bytes, entry.sha256, read)
        with explain_write_errors(place):
            write_atomically(place / ENCODER, self.encoder)
            lines = b"".join(IndexChange(add=entry).line() for entry in self.entries)
            write_atomically(place / INDEX, lines)


@dataclass(frozen=True, slots=True)
class _DerivedFile:
    """A file of `source.share_derived`; its path names the process that made it."""

    path: Path
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> _DerivedFile:
        return cls(path, path.stat().st_size, file_sha256(path))

    def here(self, read: Read, keep: Path) -> Path:
        """The file to read on this machine."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_size == self.bytes:
                return self.path
        place = keep / f"{self.sha256[:16]}.npy"
        with explain_write_errors(keep):
            make_folders(keep)
        with hold_lock(keep / f".{place.stem}.lock", _wait):
            if not place.exists():
                _fetched(self.path, place, self.bytes, self.sha256, read)
        return place


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A bank's source for other machines. Picklable."""

    source: BankSource
    features: Mapping[Path, _Features]
    derived: Mapping[Path, _DerivedFile]

    @classmethod
    def of(cls, source: BankSource) -> RemoteSource:
        """Says what the files are, on the machine that has them."""
        return cls(
            source,
            {folder: _Features.of(folder) for folder in set(source.folders.values())},
            {path: _DerivedFile.of(path) for path in set(source.derived.values())},
        )

    def here(self, read: Read, keep: Path) -> BankSource:
        """The source on this machine; one process of it at a time fetches what is not there.

        Args:
            read: Reads the files where they are.
            keep: Folder of this machine for what is fetched, see `download_folder`.

        Raises:
            DamagedCacheError: What was fetched is not what was sealed.
            DiskError: It cannot be kept.
        """
        folders = {folder: of.here(read, keep) for folder, of in self.features.items()}
        derived = {path: of.here(read, keep) for path, of in self.derived.items()}
        return replace(
            self.source,
            folders={key: folders[folder] for key, folder in self.source.folders.items()},
            derived={key: derived[path] for key, path in self.source.derived.items()},
        )


def _wait() -> None:
    """Another process of this machine fetches the same, however long that takes."""


def _fetched(source: Path, place: Path, size: int, sha256: str, read: Read) -> None:
    """Fetches a file; it has its name when its bytes are those that were named."""
    temporary = place.with_name(f"{TEMPORARY}{place.name}")
    discard(temporary)  # of a process that was killed: one at a time fetches
    found, offset = hashlib.sha256(), 0
    with explain_write_errors(place):
        with new_file(temporary) as file:
            while offset < size:
                piece = _asked(read, source, offset, min(_PIECE, size - offset))
                found.update(piece)
                file.write(piece)
                offset += len(piece)
        if found.hexdigest() != sha256:
            discard(temporary)
            raise DamagedCacheError(f"{source} is not what was sealed.", _AGAIN)
        DISK.rename(temporary, place)


def _asked(read: Read, source: Path, offset: int, count: int) -> bytes:
    try:
        piece = read(source, offset, count)
    except OSError as error:  # of the other machine, not of this one's disk
        raise CacheError(f"{source} cannot be fetched: {error}.", _AGAIN) from error
    if not piece:
        raise DamagedCacheError(f"{source} ends after {offset} bytes.", _AGAIN)
    return piece
