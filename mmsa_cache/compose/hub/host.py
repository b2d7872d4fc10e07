"""Where stores are shared: a hub, an object store; and the files of a store there."""

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
_OTHERS = {CARD, ".gitattributes"}
"""Files of a repository that are not the store's."""
_FEATURES = r"features/(?:text|image)/[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{8}"
_LIMITS = (
    (re.compile(rf"{_FEATURES}/encoder\.json"), 1 << 20),
    (re.compile(rf"{_FEATURES}/index\.jsonl"), MAX_INDEX_BYTES),
    (re.compile(rf"{_FEATURES}/[0-9a-f]{{16}}\.h5"), MAX_SHARD_BYTES),
    (re.compile(rf"data/(?:{'|'.join(SPLITS)})\.parquet"), 16 << 30),
)
"""The files of a store, and the most bytes of each."""
MAX_FILES = 1_000_000
"""Of one store: an entry takes 200 bytes here, and as many in an index."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What a host says of a file."""

    size: int
    sha256: str | None = None
    blob: str | None = None
    """sha1 of git, of files of a hub without a sha256."""

    @property
    def is_hashed(self) -> bool:
        """Whether the host says more of its content than how long it is."""
        return (self.sha256 or self.blob) is not None


@dataclass(frozen=True, slots=True)
class Remote:
    """A store as it is at a host."""

    files: dict[str, RemoteFile]
    """By their names in a store."""
    revision: str = ""
    """The commit, at a hub."""


class Host(Protocol):
    """Where one store is shared."""

    @property
    def name(self) -> str:
        """Of the store: what is noted of a pull."""

    @property
    def title(self) -> str:
        """The same for people."""

    @property
    def teller(self) -> str:
        """Who says which files there are."""

    def look(self) -> Remote:
        """What is there now.

        Raises:
            CacheNotFoundError: Nothing.
            DamagedCacheError: Files that are no store's, or too large ones.
            CacheError: The host cannot be reached, or refuses.
        """

    def fetch(self, remote: Remote, names: Sequence[str], folder: Path) -> None:
        """Downloads files into a folder, under their names in a store.

        Raises:
            CacheError: As of `look`; the next call goes on.
        """

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Uploads a store.

        Args:
            folder: The store.
            card: Markdown for people, where the host shows some.
            private: Nobody else may see it.

        Returns:
            The revision, at a hub; else empty.

        Raises:
            SettingsError: It cannot be private.
            CacheError: As of `look`.
        """


def is_of_store(path: str) -> bool:
    """Whether a file is a store's by its name."""
    return any(pattern.fullmatch(path) for pattern, _ in _LIMITS)


def local_files(root: Path) -> dict[str, Path]:
    """The files of a store in a folder, by their names in it."""
    found = {}
    for pattern in ("features/*/*/*", "data/*.parquet"):
        for path in root.glob(pattern):
            name = path.relative_to(root).as_posix()
            if is_of_store(name):
                found[name] = path
    return found


def files_of_store(title: str, listed: Iterable[tuple[str, RemoteFile]]) -> dict[str, RemoteFile]:
    """What a host lists, where that is a store.

    Raises:
        DamagedCacheError: There are files that are no store's, or too large ones.
    """
    files: dict[str, RemoteFile] = {}
    problems: list[str] = []
    for path, found in listed:
        if path in _OTHERS:
            continue
        limit = next((n for pattern, n in _LIMITS if pattern.fullmatch(path)), None)
        if limit is None:
            problems.append(f"{path!r} is no file of a store")
        elif not 0 < found.size <= limit:
            problems.append(f"{path} has {found.size} bytes")
        else:
            files[path] = found
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
