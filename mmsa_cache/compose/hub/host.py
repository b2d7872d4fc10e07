"""The protocol of hosts that stores are shared at, and the files of a store there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.names import SPLITS
from mmsa_cache.store.index import MAX_INDEX_BYTES, MAX_SHARD_BYTES

CARD = "README.md"
_OTHER_FILES = {CARD, ".gitattributes"}
"""Files of a repository that do not belong to the store."""
_FEATURES = r"features/(?:text|image)/[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{8}"
_LIMITS = (
    (re.compile(rf"{_FEATURES}/encoder\.json"), 1 << 20),
    (re.compile(rf"{_FEATURES}/index\.jsonl"), MAX_INDEX_BYTES),
    (re.compile(rf"{_FEATURES}/[0-9a-f]{{16}}\.h5"), MAX_SHARD_BYTES),
    (re.compile(rf"data/(?:{'|'.join(SPLITS)})\.parquet"), 16 << 30),
)
"""Name pattern and most bytes of the files of a store."""
MAX_FILES = 1_000_000
"""Of a store: an entry takes 200 bytes here, and as many in an index."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file by its host."""

    size: int
    sha256: str | None = None
    blob: str | None = None
    """sha1 of git, where a hub has no sha256."""

    @property
    def is_hashed(self) -> bool:
        """Whether the host has a hash of its content."""
        return (self.sha256 or self.blob) is not None


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A store at a host."""

    files: dict[str, RemoteFile]
    """By name in the store."""
    revision: str = ""
    """The commit, at a hub."""


class Host(Protocol):
    """A host that shares one store."""

    @property
    def name(self) -> str:
        """Name of the store, which a pull notes."""

    @property
    def title(self) -> str:
        """Name of the store in messages."""

    @property
    def source(self) -> str:
        """Name of the kind of host in messages."""

    def look(self) -> RemoteStore:
        """Lists the files of the store.

        Raises:
            CacheNotFoundError: There are none.
            DamagedCacheError: There are files that do not belong to a store, or too large ones.
            CacheError: The host cannot be reached, or refuses.
        """

    def fetch(self, remote: RemoteStore, names: Sequence[str], folder: Path) -> None:
        """Downloads files into a folder, under their names in the store.

        Raises:
            CacheError: As `look` raises; the next call resumes.
        """

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Uploads a store.

        Args:
            folder: The store.
            card: Description in Markdown, if the host shows one.
            private: The store must be private.

        Returns:
            The revision at a hub; else empty.

        Raises:
            SettingsError: It cannot be private.
            CacheError: As `look` raises.
        """


def is_of_store(path: str) -> bool:
    """Whether a file belongs to a store by its name."""
    return any(pattern.fullmatch(path) for pattern, _ in _LIMITS)


def local_files(root: Path) -> dict[str, Path]:
    """The files of a store in a folder, by name."""
    paths = (p for pattern in ("features/*/*/*", "data/*.parquet") for p in root.glob(pattern))
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: path for name, path in files.items() if is_of_store(name)}


def files_of_store(title: str, listed: Iterable[tuple[str, RemoteFile]]) -> dict[str, RemoteFile]:
    """Checks the files that a host lists.

    Raises:
        DamagedCacheError: There are files that do not belong to a store, or too large ones.
    """
    files: dict[str, RemoteFile] = {}
    problems: list[str] = []
    for path, file in listed:
        if path in _OTHER_FILES:
            continue
        limit = next((n for pattern, n in _LIMITS if pattern.fullmatch(path)), None)
        if limit is None:
            problems.append(f"{path!r} is no file of a store")
        elif not 0 < file.size <= limit:
            problems.append(f"{path} has {file.size} bytes")
        else:
            files[path] = file
        if len(files) + len(problems) > MAX_FILES:
            problems.append(f"it has more than {MAX_FILES} files")
            break
    if len({path.casefold() for path in files}) < len(files):
        problems.append("names differ in upper and lower case only")
    if problems:
        raise DamagedCacheError(
            f"What {title} holds is no store.",
            "Use one that mmsa cache push, or extract --target, alone writes to.",
            problems,
        )
    return files
