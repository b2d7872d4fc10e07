"""``mmsa cache pull``: a shared store, checked before any of it is put in place."""

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

from .host import Host, Remote, local_files
from .hosts import host_of
from .verification import is_same, verify

_STAGING, _NOTE, _LOCK = ".pull", ".pulled.json", ".pull.lock"
_MAX_NOTE = 1 << 27
Hashes = dict[str, str]
"""File → sha256."""
State = dict[str, tuple[int, int, int]]
"""File → inode, bytes and time of the last change."""
Known = dict[str, list[str]]
"""File → sha256 that pulls from this repository gave it."""


class _Note(BaseModel):
    """What pulls put into a folder."""

    repository: str
    files: Known


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a store holds now."""

    repository: str
    """Or the address of an object store."""
    revision: str
    """The commit, at the hub; else empty."""
    cache: str
    files: int
    files_new: int
    """Files that were not there."""
    bytes_new: int
    encoders: list[str]
    splits: dict[str, int]
    """Rows of each split."""


def pull(settings: Settings, url: str) -> Pulled:
    """Takes a shared store, into a folder that is empty or holds the same store.

    Args:
        settings: Name the folder.
        url: ``hf://USER/REPO``, or that of an object store.

    Raises:
        SettingsError: The address is none.
        CacheNotFoundError: There is no such repository, or no store.
        DamagedCacheError: It holds something else than a store.
        CacheError: The host cannot be reached, or the folder holds another store.
        DiskError: It cannot be written; the same command resumes.
    """
    host, root = host_of(url), settings.cache.dir
    remote = host.look()
    is_new, staging = not root.exists(), root / _STAGING
    with explain_write_errors(root):
        make_folders(root)
        with hold_lock(root / _LOCK, lambda: say("Another process is pulling; waiting.")):
            there = local_files(root)
            before = _state(root)
            known = _known(root, host.name)
            same = _same(root, there, remote, known, host.teller)
            try:
                _stage(host, remote, staging, {name: there[name] for name in same})
                encoders, splits = verify(staging, remote, host.teller)
            except DamagedCacheError:
                _leave_nothing(root, is_new=is_new)
                raise
            files = _hashes(staging, remote)
            new = _new(files, there, same)
            size = sum((staging / name).lstat().st_size for name in new)
            with _unchanged(root, {*files, *there}, before):
                _put_in_place(root, host.name, files, known, new)
                for name in there.keys() - files.keys():
                    DISK.remove(there[name])
            _write_note(root, host.name, {name: [sha256] for name, sha256 in files.items()})
            remove_tree(staging)
    counts = len(files), len(new), size
    return Pulled(host.name, remote.revision, str(root), *counts, encoders, splits)


def _state(root: Path) -> State:
    found = {}
    for name, path in local_files(root).items():
        with contextlib.suppress(FileNotFoundError):
            about = path.lstat()
            found[name] = about.st_ino, about.st_size, about.st_mtime_ns
    return found


@contextlib.contextmanager
def _unchanged(root: Path, names: Iterable[str], before: State) -> Iterator[None]:
    """Keeps writers from features into which files are put, which took a while to come.

    Raises:
        CacheError: The store was changed meanwhile, as by an extraction.
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


def _hashes(staging: Path, remote: Remote) -> Hashes:
    """The files that are to be in place, as they were checked; some are not as they came."""
    hashes = {}
    for name, path in local_files(staging).items():
        told = remote.files[name].sha256 if name in remote.files else None
        is_sealed = name.endswith(".h5") and told is not None
        hashes[name] = told if is_sealed and told else file_sha256(path)
    return hashes


def _new(files: Hashes, there: Mapping[str, Path], same: set[str]) -> set[str]:
    """Those that are not in place."""
    sealed = {name for name in same if name.endswith(".h5")}
    return {
        name
        for name, sha256 in files.items()
        if name not in there or (name not in sealed and file_sha256(there[name]) != sha256)
    }


def _leave_nothing(root: Path, *, is_new: bool) -> None:
    remove_tree(root / _STAGING)
    if is_new:
        discard(root / _LOCK)
        with contextlib.suppress(OSError):
            DISK.remove_folder(root)


def _known(root: Path, repository: str) -> Known:
    try:
        note = _Note.model_validate(parse_json(read_regular(root / _NOTE, _MAX_NOTE, links=False)))
        return note.files if note.repository == repository else {}
    except (OSError, ValueError):
        return {}


def _same(
    root: Path, there: Mapping[str, Path], remote: Remote, known: Known, teller: str
) -> set[str]:
    """Files that are as they are shared.

    Raises:
        CacheError: There are others, which no pull from it put there.
    """
    same, foreign = set(), []
    for name, path in sorted(there.items()):
        if name in remote.files and is_same(path, remote.files[name], teller):
            same.add(name)
        elif path.is_symlink() or file_sha256(path) not in known.get(name, []):
            foreign.append(f"{name} is not of this repository")
    if foreign:
        raise CacheError(
            f"{root} holds another store than the repository, or more than it.",
            "Pull into another --cache folder.",
            foreign,
        )
    return same


def _stage(host: Host, remote: Remote, staging: Path, there: Mapping[str, Path]) -> None:
    """Downloads what is missing; what an interrupted pull downloaded is kept."""
    check_target(staging, folder=True)
    for name, path in local_files(staging).items():
        if name not in remote.files or name in there:
            DISK.remove(path)
    check_tree(staging)  # the host's library opens what is there by its name
    make_folders(staging)
    for name, path in there.items():
        make_folders((staging / name).parent)
        if name.endswith(INDEX):  # it is added to in place, under one name alone
            copy_new(path, staging / name, MAX_INDEX_BYTES)
        else:
            link_or_copy(path, staging / name)
    wanted = {name: remote.files[name] for name in sorted(remote.files.keys() - there.keys())}
    missing = [n for n, file in wanted.items() if not is_same(staging / n, file, host.teller)]
    size = sum(wanted[name].size for name in missing)
    if size > shutil.disk_usage(staging).free:
        raise DiskError(
            f"{staging} has no room for {decimal(size)}.", "Free space, or give another --cache."
        )
    if missing:
        say(f"Pulling {len(missing)} files, {decimal(size)}, from {host.title}.")
        host.fetch(remote, missing, staging)


def _put_in_place(root: Path, repository: str, files: Hashes, known: Known, new: set[str]) -> None:
    """Moves what is new, an index after its shards and splits last; they are known by then."""
    staging = root / _STAGING
    for name, sha256 in files.items():
        known.setdefault(name, []).append(sha256)
    _write_note(root, repository, known)
    for end in (".h5", ENCODER, INDEX, ".parquet"):
        for name in sorted(new):
            if name.endswith(end):
                sync(staging / name)
                make_folders((root / name).parent)
                DISK.rename(staging / name, root / name)
                sync((root / name).parent)


def _write_note(root: Path, repository: str, files: Known) -> None:
    note = _Note(repository=repository, files=files)
    write_atomically(root / _NOTE, json.dumps(note.model_dump(), sort_keys=True).encode())
