"""Verifies shards, skipping those that are unchanged since they were last hashed."""

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

from .index import MAX_INDEX_BYTES, ShardEntry
from .shard_file import check_bytes, check_size

VERIFIED = ".verified.json"
_THREADED_BYTES = 32 << 20
"""Fewest bytes that are hashed with threads."""


def verify_changed(folder: Path, entries: Sequence[ShardEntry], note: Path | None = None) -> None:
    """Hashes the shards whose size or times changed since they were last verified.

    The change time, which no program can set, moves with every write: damage by other programs is
    seen at the next open, and an unchanged store opens without being read.

    Args:
        folder: The feature folder.
        entries: The shards.
        note: File of the verified times on this machine; default: in the folder.

    Raises:
        DamagedCacheError: Names the first file that is not what was sealed.
    """
    note = note or folder / VERIFIED
    verified: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = parse_json(read_regular(note, MAX_INDEX_BYTES, links=False))
        verified = raw if isinstance(raw, dict) else {}
    started = time.time()
    times = {entry.name: _times(folder, entry) for entry in entries}
    states = {entry.name: [entry.sha256, *times[entry.name]] for entry in entries}
    changed = [entry for entry in entries if verified.get(entry.name) != states[entry.name]]
    if not changed:
        return
    check_shards(lambda entry: check_bytes(folder, entry), changed)
    # The times are from before the hashing: shards written since are hashed next time. So are those
    # written just before, since a further write may leave the same time.
    certain = {
        name: states[name]
        for name, (_, *last) in times.items()
        if max(last) < 1e9 * (started - CLOCK_TICK)
    }
    with contextlib.suppress(OSError):  # a read-only store is hashed every time
        write_atomically(note, json.dumps(certain).encode())


def check_shards(check: Callable[[ShardEntry], Any], entries: Sequence[ShardEntry]) -> None:
    """Checks shards, many bytes with threads, since hashing releases the GIL."""
    if sum(entry.bytes for entry in entries) < _THREADED_BYTES:
        for entry in entries:
            check(entry)
        return
    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            for _ in pool.map(check, entries):
                pass
    except RuntimeError:  # no memory to start a thread
        for entry in entries:
            check(entry)


def _times(folder: Path, entry: ShardEntry) -> tuple[int, int, int]:
    status = check_size(folder / entry.file, entry.bytes)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
