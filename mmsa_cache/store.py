"""Writing, sealing, opening and verifying a feature cache.

A shard is written whole under a temporary name, closed, fsynced, hashed, entered in the receipt
``manifest.partial.json``, renamed, and its directory fsynced. The receipt comes before the rename,
so every published shard has its hash. When the last shard is there the receipt becomes
``manifest.json``. Nothing published is ever opened for writing again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from . import fingerprint, schema
from .errors import CacheError, CacheNotFoundError, DamagedCacheError, StaleCacheError
from .schema import Shard, shard_name

MANIFEST = "manifest.json"
RECEIPT = "manifest.partial.json"
_TEMPORARY = ".tmp-"
_MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """What the manifest says of one shard."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cache is: its fields, its pools and its shards."""

    fields: dict[str, Any]
    rows: int
    shards: tuple[ShardEntry, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint.digest(self.fields)

    @property
    def complete(self) -> bool:
        return sum(entry.rows for entry in self.shards) == self.rows


def read_manifest(directory: Path, name: str = MANIFEST) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        CacheNotFoundError: There is none.
        DamagedCacheError: It is not a manifest of this schema.
    """
    path = directory / name
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise DamagedCacheError(f"{path} is too large for a manifest.")
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CacheNotFoundError(
            f"There is no finished cache in {directory}.", "Run mmsa extract."
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedCacheError(f"{path} cannot be read: {error}", _AGAIN) from error
    try:
        if raw["schema"] != schema.SCHEMA_VERSION:
            raise StaleCacheError(
                f"{path} has schema {raw['schema']}, this program writes {schema.SCHEMA_VERSION}.",
                "Extract again into another --cache folder.",
            )
        entries = tuple(
            ShardEntry(str(e["name"]), int(e["rows"]), int(e["bytes"]), str(e["sha256"]))
            for e in raw["shards"]
        )
        manifest = Manifest(dict(raw["fields"]), int(raw["rows"]), entries)
        stated = raw["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCacheError(f"{path} is not a manifest: {error!r}", _AGAIN) from error
    for i, entry in enumerate(entries):
        if entry.name != shard_name(i):
            raise DamagedCacheError(f"{path}: shard {i} is called {entry.name!r}.", _AGAIN)
    if stated != manifest.fingerprint:
        raise DamagedCacheError(f"{path}: its fields do not give its fingerprint.", _AGAIN)
    return manifest


_AGAIN = "Delete this cache folder and run mmsa extract again."


def find_cache(parent: Path, encoder: str, fields: dict[str, Any]) -> Path:
    """The folder of the finished cache with exactly these fields.

    Raises:
        StaleCacheError: Only caches with other fields lie there; the nearest one's are named.
        CacheNotFoundError: None lies there.
    """
    directory = parent / fingerprint.cache_name(encoder, fields)
    if (directory / MANIFEST).is_file():
        return directory
    if (directory / RECEIPT).is_file():
        raise CacheNotFoundError(
            f"The extraction into {directory} was not finished.", "Run mmsa extract: it resumes."
        )
    nearest = nearest_cache(parent, fields)
    if nearest is None:
        raise CacheNotFoundError(f"There is no cache in {parent}.", "Run mmsa extract.")
    raise StaleCacheError(
        f"The cache {nearest[0]} was made from something else.",
        "Run mmsa extract with these settings, or go back to those of the cache.",
        nearest[1],
    )


def nearest_cache(parent: Path, fields: dict[str, Any]) -> tuple[Path, list[str]] | None:
    """The finished cache that differs in the fewest fields, and these differences."""
    found = []
    for path in sorted(parent.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(CacheError):
            manifest = read_manifest(path.parent)
            found.append((path.parent, fingerprint.differences(fields, manifest.fields)))
    return min(found, key=lambda item: len(item[1]), default=None)


def lock_path(directory: Path) -> Path:
    """The lock of a cache: whoever writes it or removes it holds this."""
    return directory.parent / f".{directory.name}.lock"


def note_path(directory: Path) -> Path:
    """Where it is noted which shards of a cache were found whole, and when they were touched."""
    return directory.parent / f".{directory.name}.verified"


class CacheWriter:
    """Publishes the shards of one cache; what an earlier run published stays.

    Args:
        directory: Folder of this cache.
        fields: Its fingerprint's fields.
        rows: Rows in all.
    """

    def __init__(self, directory: Path, fields: dict[str, Any], rows: int) -> None:
        self._directory = directory
        self._manifest = Manifest(fields, rows, ())
        self._fingerprint = fingerprint.digest(fields)

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the cache's lock; calls ``waiting`` once if another process has it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path(self._directory))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            self._recover()
            yield
        finally:
            lock.release()

    @property
    def complete(self) -> bool:
        return (self._directory / MANIFEST).is_file()

    @property
    def done(self) -> int:
        """Number of shards that are published (always the first ones)."""
        return len(self._manifest.shards)

    @property
    def rows_done(self) -> int:
        return sum(entry.rows for entry in self._manifest.shards)

    @property
    def bytes_done(self) -> int:
        """Size of the published shards."""
        return sum(entry.bytes for entry in self._manifest.shards)

    def _recover(self) -> None:
        """Takes up what an earlier run left: sealed shards stay, temporaries go."""
        for path in self._directory.glob(f"{_TEMPORARY}*"):
            path.unlink()
        name = MANIFEST if self.complete else RECEIPT
        if not (self._directory / name).is_file():
            return
        found = read_manifest(self._directory, name)
        # Where the receipt was written and the rename was not, the shard is made again.
        kept = list(
            itertools.takewhile(lambda e: (self._directory / e.name).is_file(), found.shards)
        )
        # A finished cache is only looked over; it is hashed where it is opened or verified.
        check = _check_size if self.complete else _check_bytes
        _each(lambda entry: check(self._directory / entry.name, entry), kept)
        if self.complete and len(kept) < len(found.shards):
            raise DamagedCacheError(
                f"{self._directory / found.shards[len(kept)].name} is missing.", _AGAIN
            )
        self._manifest = Manifest(found.fields, found.rows, tuple(kept))

    def publish(self, shard: Shard) -> None:
        """Seals the next shard."""
        name = shard_name(self.done)
        temporary = self._directory / f"{_TEMPORARY}{name}"
        _write_shard(temporary, shard, self._fingerprint)
        _fsync(temporary)
        entry = ShardEntry(
            name, len(shard.guids), temporary.stat().st_size, fingerprint.file_sha256(temporary)
        )
        self._manifest = Manifest(
            self._manifest.fields, self._manifest.rows, (*self._manifest.shards, entry)
        )
        self._write_receipt()
        temporary.rename(self._directory / name)
        _fsync(self._directory)

    def finish(self) -> None:
        """Turns the receipt into the manifest.

        Raises:
            CacheError: Rows are missing.
        """
        if self.complete:
            return
        if not self._manifest.complete:
            raise CacheError(f"{self._directory}: rows are missing, the cache stays unfinished.")
        (self._directory / RECEIPT).rename(self._directory / MANIFEST)
        _fsync(self._directory)

    def _write_receipt(self) -> None:
        content = {
            "schema": schema.SCHEMA_VERSION,
            "fingerprint": self._fingerprint,
            "rows": self._manifest.rows,
            "shards": [
                {"name": e.name, "rows": e.rows, "bytes": e.bytes, "sha256": e.sha256}
                for e in self._manifest.shards
            ],
            "fields": self._manifest.fields,
        }
        write_atomically(
            self._directory / RECEIPT,
            json.dumps(content, indent=1, sort_keys=True).encode() + b"\n",
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file whole or not at all."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_shard(path: Path, shard: Shard, digest: str) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs["schema"] = schema.SCHEMA_VERSION
        file.attrs["fingerprint"] = np.bytes_(digest)
        file.create_dataset("guids", data=_fixed(shard.guids))
        file.create_dataset("variant", data=shard.variant.astype("<i4"))
        file.create_dataset("operations", data=_fixed(shard.operations))
        file.create_dataset("offsets", data=shard.offsets.astype("<i8"))
        file.create_dataset("tokens", data=shard.tokens.astype(schema.FEATURE_DTYPE))
        pooled = file.create_dataset("pooled", data=shard.pooled.astype(schema.FEATURE_DTYPE))
        pooled.attrs["pools"] = _fixed(list(shard.pools))
        if shard.shared is not None:
            file.create_dataset(schema.SHARED, data=shard.shared.astype(schema.FEATURE_DTYPE))


def _fixed(texts: list[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8 bytes (HDF5 keeps those in place, without a heap); at least one byte."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def open_shards(directory: Path, *, verify: bool = True, name: str = MANIFEST) -> Iterator[Shard]:
    """Opens the shards of a finished cache in order.

    Args:
        directory: The cache's folder.
        verify: Re-hash every file first that was not found whole since it was last touched.
        name: `RECEIPT` opens the sealed shards of an unfinished cache.

    Raises:
        CacheNotFoundError: There is no finished cache.
        DamagedCacheError: Names the file and what is wrong with it.
    """
    manifest = read_manifest(directory, name)
    if name == MANIFEST and not manifest.complete:
        raise DamagedCacheError(f"{directory}: the manifest's shards lack rows.", _AGAIN)
    if verify:
        _verify_touched(directory, manifest)
    for entry in manifest.shards:
        yield _map_shard(directory / entry.name, entry, manifest.fingerprint)


def _verify_touched(directory: Path, manifest: Manifest) -> None:
    """Hashes the shards whose size or times differ from when they were last found whole.

    The change time, which no program can set, moves with every write; so what another program did
    to a file is seen at the next open, and an untouched cache opens without being read through.

    Raises:
        DamagedCacheError: Names the first file that is not what was sealed.
    """
    note = note_path(directory)
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = json.loads(note.read_bytes()) if note.stat().st_size <= _MAX_MANIFEST_BYTES else {}
        known = raw if isinstance(raw, dict) else {}
    now = {e.name: [e.sha256, *_times(directory / e.name, e)] for e in manifest.shards}
    touched = [e for e in manifest.shards if known.get(e.name) != now[e.name]]
    if not touched:
        return
    _each(lambda entry: _check_bytes(directory / entry.name, entry), touched)
    # Times are those from before the hashing: what was written meanwhile is hashed next time.
    with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
        write_atomically(note, json.dumps(now).encode())


def _times(path: Path, entry: ShardEntry) -> tuple[int, int, int]:
    _check_size(path, entry)
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _each(check: Callable[[ShardEntry], None], entries: Sequence[ShardEntry]) -> None:
    """Checks entries side by side: hashing releases the interpreter."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(check, entries):
            pass


def verify_cache(directory: Path) -> list[str]:
    """Re-hashes every shard; returns one line for each damaged file."""
    problems = []
    manifest = read_manifest(directory)
    for entry in manifest.shards:
        try:
            _check_bytes(directory / entry.name, entry)
            _map_shard(directory / entry.name, entry, manifest.fingerprint)
        except DamagedCacheError as error:
            problems.append(error.message)
    if not manifest.complete:
        problems.append(f"{directory / MANIFEST}: its shards hold fewer rows than it states")
    return problems


def _check_size(path: Path, entry: ShardEntry) -> None:
    try:
        if path.is_symlink():
            raise DamagedCacheError(f"{path} is a link, not a shard.", _AGAIN)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise DamagedCacheError(f"{path} is missing.", _AGAIN) from error
    if size != entry.bytes:
        raise DamagedCacheError(f"{path} has {size} bytes, sealed were {entry.bytes}.", _AGAIN)


def _check_bytes(path: Path, entry: ShardEntry) -> None:
    _check_size(path, entry)
    found = fingerprint.file_sha256(path)
    if found != entry.sha256:
        raise DamagedCacheError(
            f"{path} was changed after it was sealed (sha256 {found[:12]}…, "
            f"sealed {entry.sha256[:12]}…).",
            _AGAIN,
        )


def _map_shard(path: Path, entry: ShardEntry, digest: str) -> Shard:
    """Opens a shard without trusting it: only plain, contiguous, unfiltered local datasets."""

    def refuse(why: str) -> DamagedCacheError:
        return DamagedCacheError(f"{path}: {why}.", _AGAIN)

    try:
        with contextlib.closing(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)) as file:
            group = h5py.h5g.open(file, b"/")
            names = {name.decode() for name in group}
            if names - {schema.SHARED} != set(schema.DATASETS):
                raise refuse(f"holds {sorted(names)}, expected {sorted(schema.DATASETS)}")
            if _bytes_of(group, b"fingerprint").item().decode() != digest:
                raise refuse("belongs to another cache (fingerprint)")
            places: dict[str, tuple[np.dtype[Any], tuple[int, ...], int | None]] = {}
            for name in sorted(names):
                if group.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                    raise refuse(f"{name} is a link to elsewhere")
                item = h5py.h5o.open(group, name.encode())
                plan = item.get_create_plist() if isinstance(item, h5py.h5d.DatasetID) else None
                if plan is None or plan.get_layout() == h5py.h5d.VIRTUAL:
                    raise refuse(f"{name} is not a dataset of this file")
                if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_nfilters():
                    raise refuse(f"{name} is filtered or not contiguous")
                if plan.get_external_count():
                    raise refuse(f"{name} is not a dataset of this file")
                places[name] = (item.dtype, item.shape, item.get_offset())
                if name == "pooled":
                    pools = tuple(pool.decode() for pool in _bytes_of(item, b"pools").tolist())
        rows, dim = entry.rows, places["tokens"][1][-1]
        shapes = {
            "guids": ((rows,), "S"),
            "variant": ((rows,), "<i4"),
            "operations": ((rows,), "S"),
            "offsets": ((rows + 1,), "<i8"),
            "tokens": ((places["tokens"][1][0], dim), "<f2"),
            "pooled": ((rows, len(pools), dim), "<f2"),
        }
        if schema.SHARED in places:
            shapes[schema.SHARED] = ((rows, *places[schema.SHARED][1][1:2]), "<f2")
        for name, (shape, wanted) in shapes.items():
            dtype, have, offset = places[name]
            same = dtype.kind == "S" if wanted == "S" else dtype == np.dtype(wanted)
            size = math.prod(have)
            if have != shape or not same or size * dtype.itemsize > entry.bytes:
                raise refuse(f"{name} is {have} {dtype}, expected {shape} {wanted}")
            if size and offset is None:
                raise refuse(f"{name} has no storage")
    except (OSError, KeyError, IndexError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise refuse(f"is not a readable shard ({error})") from error
    try:
        parts = _map_arrays(path, places)
    except (OSError, TypeError, ValueError) as error:  # places beyond the end of the file
        raise refuse(f"is not a readable shard ({error})") from error
    try:
        return Shard(
            [guid.decode() for guid in parts["guids"].tolist()],
            parts["variant"],
            [operation.decode() for operation in parts["operations"].tolist()],
            parts["offsets"],
            parts["tokens"],
            parts["pooled"],
            pools,
            parts.get(schema.SHARED),
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise refuse(str(error)) from error


def _bytes_of(owner: Any, name: bytes) -> NDArray[np.bytes_]:
    """An attribute of fixed-length bytes; h5py's low level, since a cache has many shards.

    Raises:
        ValueError: It is of another type.
    """
    attribute = h5py.h5a.open(owner, name)
    if attribute.dtype.kind != "S":
        raise ValueError(f"attribute {name.decode()} is {attribute.dtype}")
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    return value


def _map_arrays(path: Path, places: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Arrays on one copy-on-write map of a file: processes share it, none can change the file."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    parts: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape, offset) in places.items():
        if not math.prod(shape):  # HDF5 gives nothing no place
            parts[name] = np.empty(shape, dtype)
            continue
        array: NDArray[Any] = np.ndarray(shape, dtype, mapped, offset)
        parts[name] = array if array.flags.aligned else array.copy()
    return parts
