"""Lists and removes the features in a store, without model code."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.errors import MmsaError
from mmsa_cache.files.abandoned import TEMPORARY
from mmsa_cache.files.disk import DISK
from mmsa_cache.files.locks import try_lock
from mmsa_cache.names import MODALITIES

from .encoder import ENCODER, FEATURES, StoredEncoder, read_encoder
from .index import INDEX, SHARD_FILES, Index
from .sealed_rows import lock_path
from .verification import VERIFIED

_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """The features of one encoder in a store."""

    folder: Path
    modality: str
    encoder: StoredEncoder | None
    """None if the record cannot be read."""
    rows: int
    shards: int
    bytes: int
    age_days: float
    """Days since the last change."""
    error: MmsaError | None
    """Why the record or index cannot be read."""

    @property
    def problem(self) -> str:
        """Message of the error; empty if there is none."""
        return "" if self.error is None else self.error.message

    @property
    def label(self) -> str:
        """Name of the encoder for users."""
        return self.folder.name if self.encoder is None else self.encoder.identity.label


def list_features(root: Path) -> list[StoredFeatures]:
    """Lists all features in a store, damaged ones too; ignores links and other folders."""
    folders: list[Path] = []
    for modality in MODALITIES:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folders += (root / FEATURES / modality).iterdir()
    return [
        _describe(folder)
        for folder in sorted(folders)
        if not folder.is_symlink() and _holds_features(folder)
    ]


def _holds_features(folder: Path) -> bool:
    try:
        return any((folder / name).exists() for name in (ENCODER, INDEX))
    except PermissionError:
        return True  # listed with the error


def _describe(folder: Path) -> StoredFeatures:
    encoder, index, problem = None, Index(folder), None
    try:
        encoder = read_encoder(folder)
        index = Index.read(folder)
    except MmsaError as error:
        problem = error
    files: list[os.stat_result] = []
    for path in folder.glob("*"):  # none of one that was removed just now
        with contextlib.suppress(FileNotFoundError, PermissionError):  # a writer's, done just now
            files.append(path.lstat())
    newest = max((stat.st_mtime for stat in files), default=0.0)
    age = max(0.0, time.time() - newest) / _DAY
    size = sum(stat.st_size for stat in files)
    modality = folder.parent.name
    counts = (index.rows, len(index.entries), size, age)
    return StoredFeatures(folder, modality, encoder, *counts, problem)


@dataclass(frozen=True, slots=True)
class Removal:
    """The outcome of removing the features of one encoder."""

    directory: Path
    bytes: int
    state: str
    """``removed``, ``removed but for …``, ``would be removed`` or ``in use``."""


def remove_features(features: Iterable[StoredFeatures], *, really: bool) -> list[Removal]:
    """Removes features, except those that an extraction is writing.

    The index is removed first and the encoder's record last: the rest of an interrupted removal is
    not damaged, and is listed.

    Args:
        features: Entries of `list_features`.
        really: If False, nothing is removed.
    """
    return [
        Removal(item.folder, item.bytes, _remove(item.folder) if really else WOULD_BE_REMOVED)
        for item in features
    ]


WOULD_BE_REMOVED = "would be removed"
FOREIGN_FILES = "removed but for files that are no cache's"


def _remove(folder: Path) -> str:
    claims = sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.claim"))
    claims = claims or [folder.parent / f".{folder.name}.1-of-1.claim"]
    with contextlib.ExitStack() as stack:
        for lock in (*claims, lock_path(folder)):
            if not stack.enter_context(try_lock(lock)):
                return "in use"
        files = [*sorted(folder.glob(SHARD_FILES)), *folder.glob(f"{TEMPORARY}*")]
        for path in (folder / INDEX, *files, folder / VERIFIED, folder / ENCODER):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                DISK.remove(path)  # a link is removed, never followed
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if next(folder.iterdir(), None) is not None:
                return FOREIGN_FILES
            DISK.remove_folder(folder)
    return "removed"
