"""Which shards are still as they were when they were last hashed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmsa_cache.files.disk import CLOCK_TICK, write_atomically
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.native.cores import usable_cores

from . import shard_file
from .index import MAX_INDEX_BYTES, ShardEntry

NOTE = ".verified.json"
_SIDE_BY_SIDE = 32 << 20
"""Bytes from which threads are worth their start."""


def verify_changed(folder: Path, entries: Sequence[ShardEntry], note: Path | None = None) -> None:
    """Hashes the shards whose size or times changed since they were last verified.

    The change time, which no program can set, moves with every write; so what another program did
    to a file is seen at the next open, and an untouched store opens without being read through.

    Args:
        folder: The features.
        entries: The shards.
        note: Where this machine keeps the times; default: in the folder.

    Raises:
        DamagedCacheError: Names the first file that is not what was sealed.
    """
    note = note or folder / NOTE
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = parse_json(read_regular(note, MAX_INDEX_BYTES, links=False))
        known = raw if isinstance(raw, dict) else {}
    looked = time.time()
    times = {entry.name: _times(folder, entry) for entry in entries}
    now = {entry.name: [entry.sha256, *times[entry.name]] for entry in entries}
    touched = [entry for entry in entries if known.get(entry.name) != now[entry.name]]
    if not touched:
        return
    check_shards(lambda entry: check_bytes(folder, entry), touched)
    # Times are those from before the hashing: what was written meanwhile is hashed next time. So
    # is what was written just before, since a further write may have got the same time.
    settled = {
        name: now[name]
        for name, (_, *last) in times.items()
        if max(last) < 1e9 * (looked - CLOCK_TICK)
    }
    with contextlib.suppress(OSError):  # a store that may only be read is hashed every time
        write_atomically(note, json.dumps(settled).encode())


def check_shards(check: Callable[[ShardEntry], Any], entries: Sequence[ShardEntry]) -> None:
    """Checks entries; many bytes side by side, since hashing releases the interpreter."""
    if sum(entry.bytes for entry in entries) < _SIDE_BY_SIDE:
        for entry in entries:
            check(entry)
        return
    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            for _ in pool.map(check, entries):
                pass
    except RuntimeError:  # no thread can be started, for want of memory
        for entry in entries:
            check(entry)


def check_bytes(folder: Path, entry: ShardEntry) -> None:
    """Re-hashes a shard.

    Raises:
        DamagedCacheError: It is not what was sealed.
    """
    shard_file.check_bytes(folder / entry.file, entry.bytes, entry.sha256)


def _times(folder: Path, entry: ShardEntry) -> tuple[int, int, int]:
    found = shard_file.check_size(folder / entry.file, entry.bytes)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
