"""``mmsa cache pull``: downloads a shared store and verifies it before it is put in place."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from rich.filesize import decimal

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import CacheError, DamagedCacheError, DiskError
from mmsa_cache.files.disk import (
    DISK,
    copy_new,
    discard,
    explain_write_errors,
    link_or_copy,
    make_folders,
    remove_tree,
    sync,
    write_atomically,
)
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.files.locks import hold_lock
from mmsa_cache.files.paths import check_target, check_tree
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.store.encoder import ENCODER, FEATURES
from mmsa_cache.store.index import INDEX, MAX_INDEX_BYTES
from mmsa_cache.store.sealed_rows import lock_path

from .host import Host, RemoteStore, local_files
from .hosts import open_host
from .verification import matches_remote, verify

_STAGING, _NOTE, _LOCK = ".pull", ".pulled.json", ".pull.lock"
_MAX_NOTE = 1 << 27
Hashes = dict[str, str]
"""Name of a file → sha256."""
State = dict[str, tuple[int, int, int]]
"""Name of a file → inode, bytes and time of the last change."""
PulledHashes = dict[str, list[str]]
"""Name of a file → sha256 of each version that was pulled from this repository."""


class _Note(BaseModel):
    """The files that pulls have put into a folder."""

    repository: str
    files: PulledHashes


@dataclass(frozen=True, slots=True)
class Pulled:
    """The content of a store after a pull."""

    repository: str
    """Or the address of an object store."""
    revision: str
    """The commit at the hub; else empty."""
    cache: str
    files: int
    files_new: int
    """Files that were downloaded."""
    bytes_new: int
    encoders: list[str]
    splits: dict[str, int]
    """Rows of each split."""


def pull(settings: Settings, url: str) -> Pulled:
    """Downloads a shared store into a folder that is empty or holds the same store.

    Args:
        settings: Name the folder.
        url: ``hf://USER/REPO``, or the address of an object store.

    Raises:
        SettingsError: The address is invalid.
        CacheNotFoundError: There is no such repository, or no store.
        DamagedCacheError: The host holds something other than a store.
        CacheError: The host cannot be reached, or the folder holds another store.
        DiskError: The folder cannot be written; the same command resumes.
    """
    host, root = open_host(url), settings.cache.dir
    remote = host.look()
    is_new, staging = not root.exists(), root / _STAGING
    with explain_write_errors(root):
        make_folders(root)
        with hold_lock(root / _LOCK, lambda: say("Another process is pulling; waiting.")):
            local = local_files(root)
            before = _state(root)
            pulled = _read_note(root, host.name)
            same = _matching_files(root, local, remote, pulled, host.source)
            try:
                _stage(host, remote, staging, {name: local[name] for name in same})
                encoders, splits = verify(staging, remote, host.source)
            except DamagedCacheError:
                _clean_up(root, is_new=is_new)
                raise
            files = _hashes(staging, remote)
            new = _new_files(files, local, same)
            size = sum((staging / name).lstat().st_size for name in new)
            with _locked_unchanged(root, {*files, *local}, before):
                _put_in_place(root, host.name, files, pulled, new)
                for name in local.keys() - files.keys():
                    DISK.remove(local[name])
            _write_note(root, host.name, {name: [sha256] for name, sha256 in files.items()})
            remove_tree(staging)
    counts = len(files), len(new), size
    return Pulled(host.name, remote.revision, str(root), *counts, encoders, splits)


def _state(root: Path) -> State:
    state = {}
    for name, path in local_files(root).items():
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            state[name] = status.st_ino, status.st_size, status.st_mtime_ns
    return state


@contextlib.contextmanager
def _locked_unchanged(root: Path, names: Iterable[str], before: State) -> Iterator[None]:
    """Locks the features of files against other writers.

    Raises:
        CacheError: The store was changed during the download, as by an extraction.
    """
    folders = {(root / name).parent for name in names if name.startswith(f"{FEATURES}/")}
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):
            make_folders(folder.parent)
            stack.enter_context(hold_lock(lock_path(folder)))()
        if _state(root) != before:
            raise CacheError(
                f"{root} was changed while files were pulled; nothing of them was put in place.",
                "The same command looks at it again; let extractions end before.",
            )
        yield


def _hashes(staging: Path, remote: RemoteStore) -> Hashes:
    """Hashes of the verified files; verification may have changed indexes."""
    hashes = {}
    for name, path in local_files(staging).items():
        sha256 = remote.files[name].sha256 if name in remote.files else None
        hashes[name] = sha256 if name.endswith(".h5") and sha256 else file_sha256(path)
    return hashes


def _new_files(files: Hashes, local: Mapping[str, Path], same: set[str]) -> set[str]:
    """The files that are not in place yet."""
    sealed = {name for name in same if name.endswith(".h5")}
    return {
        name
        for name, sha256 in files.items()
        if name not in local or (name not in sealed and file_sha256(local[name]) != sha256)
    }


def _clean_up(root: Path, *, is_new: bool) -> None:
    """Removes what a failed pull has made."""
    remove_tree(root / _STAGING)
    if is_new:
        discard(root / _LOCK)
        with contextlib.suppress(OSError):
            DISK.remove_folder(root)


def _read_note(root: Path, repository: str) -> PulledHashes:
    try:
        note = _Note.model_validate(parse_json(read_regular(root / _NOTE, _MAX_NOTE, links=False)))
        return note.files if note.repository == repository else {}
    except (OSError, ValueError):
        return {}


def _matching_files(
    root: Path, local: Mapping[str, Path], remote: RemoteStore, pulled: PulledHashes, source: str
) -> set[str]:
    """Names of the local files that equal those of the host.

    Raises:
        CacheError: There are files that no pull from this host has put there.
    """
    same, foreign = set(), []
    for name, path in sorted(local.items()):
        if name in remote.files and matches_remote(path, remote.files[name], source):
            same.add(name)
        elif path.is_symlink() or file_sha256(path) not in pulled.get(name, []):
            foreign.append(f"{name} is not of this repository")
    if foreign:
        raise CacheError(
            f"{root} holds another store than the repository, or more than it.",
            "Pull into another --cache folder.",
            foreign,
        )
    return same


def _stage(host: Host, remote: RemoteStore, staging: Path, local: Mapping[str, Path]) -> None:
    """Links local files into the staging folder and downloads the others.

    Files that an interrupted pull has downloaded are not downloaded again.
    """
    check_target(staging, folder=True)
    for name, path in local_files(staging).items():
        if name not in remote.files or name in local:
            DISK.remove(path)
    check_tree(staging)  # the host's library opens files there by name
    make_folders(staging)
    for name, path in local.items():
        make_folders((staging / name).parent)
        if name.endswith(INDEX):  # appended to in place, so that it may have one name only
            copy_new(path, staging / name, MAX_INDEX_BYTES)
        else:
            link_or_copy(path, staging / name)
    missing = [
        name
        for name in sorted(remote.files.keys() - local.keys())
        if not matches_remote(staging / name, remote.files[name], host.source)
    ]
    size = sum(remote.files[name].size for name in missing)
    if size > shutil.disk_usage(staging).free:
        raise DiskError(
            f"{staging} has no room for {decimal(size)}.", "Free space, or give another --cache."
        )
    if missing:
        say(f"Pulling {len(missing)} files, {decimal(size)}, from {host.title}.")
        host.fetch(remote, missing, staging)


def _put_in_place(
    root: Path, repository: str, files: Hashes, pulled: PulledHashes, new: set[str]
) -> None:
    """Notes the files, then moves the new ones: an index after its shards, splits last."""
    staging = root / _STAGING
    for name, sha256 in files.items():
        pulled.setdefault(name, []).append(sha256)
    _write_note(root, repository, pulled)
    for end in (".h5", ENCODER, INDEX, ".parquet"):
        for name in sorted(new):
            if name.endswith(end):
                sync(staging / name)
                make_folders((root / name).parent)
                DISK.rename(staging / name, root / name)
                sync((root / name).parent)


def _write_note(root: Path, repository: str, files: PulledHashes) -> None:
    note = _Note(repository=repository, files=files)
    write_atomically(root / _NOTE, json.dumps(note.model_dump(), sort_keys=True).encode())
