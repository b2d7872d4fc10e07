"""The HDF5 file of a shard, read without trust.

It is read only where it is exactly what `shard_bytes` gives: plain, contiguous, unfiltered datasets
of its own.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmsa_cache.errors import DamagedCacheError, limit_error
from mmsa_cache.files import hashing
from mmsa_cache.files.untrusted import open_regular

from . import schema
from .index import MAX_SHARD_BYTES, ShardEntry
from .keys import KEY_BYTES, Keys
from .problems import MISSING, REPAIR, read_error
from .schema import Shard

_MAX_ATTRIBUTE_BYTES = 1 << 16
_MAX_KEYS_BYTES = 1 << 28
"""Of shards that are not here; merged ones of the smallest features have half of that."""


def check_size(path: Path, size: int) -> os.stat_result:
    """What the system says of a file that must have so many bytes.

    Raises:
        DamagedCacheError: It is not there, no file, or of another size.
    """
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise DamagedCacheError(f"{path} is missing.", MISSING) from error
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise DamagedCacheError(f"{path} is {kind}, not a shard.", REPAIR)
    if found.st_size != size:
        raise DamagedCacheError(f"{path} has {found.st_size} bytes, sealed were {size}.", REPAIR)
    return found


def check_bytes(path: Path, size: int, sha256: str) -> None:
    """Re-hashes a file.

    Raises:
        DamagedCacheError: It is not what was sealed.
    """
    check_size(path, size)
    try:
        found = hashing.file_sha256(path)
    except OSError as error:
        raise read_error(path, error) from error
    if found != sha256:
        raise DamagedCacheError(
            f"{path} was changed after it was sealed "
            f"(sha256 {found[:12]}…, sealed {sha256[:12]}…).",
            REPAIR,
        )


def read_entry(path: Path) -> ShardEntry | None:
    """What an index would say of a file; None where it is no shard that bears its own name.

    Raises:
        DeviceError: The system has no descriptor or memory left.
    """
    try:
        if path.lstat().st_size > MAX_SHARD_BYTES:
            return None
        digest = hashing.file_sha256(path)
        with open_regular(path, links=False) as content, h5py.File(content, "r") as file:
            keys = h5py.h5d.open(file.id, b"keys")
            entry = ShardEntry(sha256=digest, rows=keys.shape[0], bytes=path.lstat().st_size)
    except UNREADABLE as error:
        found = read_error(path, error)
        if not isinstance(found, DamagedCacheError):
            raise found from error
        return None
    return entry if entry.file == path.name else None


def read_keys(content: Any, size: int, fingerprint: str) -> Keys:
    """The keys of a shard, of which only what they need is read; nothing else of it is checked.

    Args:
        content: The file, open for reading.
        size: Its bytes.
        fingerprint: Of the encoder that it must belong to.

    Raises:
        ValueError: It is no such shard.
        Exception: As reading it raises.
    """
    with h5py.File(content, "r") as file:
        group = h5py.h5g.open(file.id, b"/")
        if _bytes_of(group, b"fingerprint").item().decode() != fingerprint:
            raise ValueError("belongs to another encoder (fingerprint)")
        keys = _dataset(group, "keys")
        dtype, shape, offset = keys.dtype, keys.shape, keys.get_offset()
    count = math.prod(shape)
    most = min(size, _MAX_KEYS_BYTES)
    if dtype != np.uint8 or shape[1:] != (KEY_BYTES,) or not 0 < count <= most or offset is None:
        raise ValueError(f"keys are {shape} {dtype}")
    content.seek(offset)
    return np.frombuffer(content.read(count), np.uint8).reshape(-1, KEY_BYTES)


def map_shard(path: Path, rows: int, size: int, fingerprint: str) -> Shard:
    """Opens a shard without trusting it; the map keeps no descriptor.

    Args:
        path: The file.
        rows: Rows that it must have.
        size: Bytes that it must have.
        fingerprint: Of the encoder that it must belong to.

    Raises:
        DamagedCacheError: It is anything else than what `encode` gives.
        DeviceError: The system has no descriptor, map or memory left.
    """
    check_size(path, size)
    try:
        with open_regular(path, links=False) as content, h5py.File(content, "r") as file:
            group = h5py.h5g.open(file.id, b"/")
            names = _names(group)
            if _bytes_of(group, b"fingerprint").item().decode() != fingerprint:
                raise _RefusedError("belongs to another encoder (fingerprint)")
            datasets = {name: _dataset(group, name) for name in names}
            pools = tuple(p.decode() for p in _bytes_of(datasets["pooled"], b"pools").tolist())
            places = {
                name: (item.dtype, item.shape, item.get_offset()) for name, item in datasets.items()
            }
        _check_shapes(places, rows, len(pools), size)
        parts = _map_arrays(path, places, size)
        return Shard(
            parts["keys"],
            [operation.decode() for operation in parts["operations"].tolist()],
            parts["offsets"],
            parts["tokens"],
            parts["pooled"],
            pools,
            parts.get(schema.SHARED),
        )
    except _RefusedError as error:
        raise DamagedCacheError(f"{path}: {error}.", REPAIR) from error
    except MemoryError as error:
        raise read_error(path, error) from error
    except UNREADABLE as error:  # also places beyond the end of the file
        found = read_error(path, error)
        if isinstance(found, DamagedCacheError):
            found = DamagedCacheError(f"{path}: is not a readable shard ({error}).", REPAIR)
        raise found from error


class _RefusedError(ValueError):
    """A shard is not what this program writes; the message says why."""


_Place = tuple[np.dtype[Any], tuple[int, ...], int | None]
"""Type, shape and offset in the file of a dataset; nothing without elements has an offset."""


def _names(group: Any) -> list[str]:
    """Names of the datasets of a shard."""
    names = {name.decode() for name in group}
    if names - {schema.SHARED} != set(schema.DATASETS):
        raise _RefusedError(f"holds {sorted(names)[:20]}, expected {sorted(schema.DATASETS)}")
    return sorted(names)


def _dataset(group: Any, name: str) -> Any:
    """A dataset of the file itself: contiguous, unfiltered, no link."""
    if group.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise _RefusedError(f"{name} is a link to elsewhere")
    item = h5py.h5o.open(group, name.encode())
    plan = item.get_create_plist() if isinstance(item, h5py.h5d.DatasetID) else None
    if plan is None or plan.get_layout() == h5py.h5d.VIRTUAL:
        raise _RefusedError(f"{name} is not a dataset of this file")
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_nfilters():
        raise _RefusedError(f"{name} is filtered or not contiguous")
    if plan.get_external_count():
        raise _RefusedError(f"{name} is not a dataset of this file")
    return item


def _check_shapes(places: dict[str, _Place], rows: int, pools: int, size: int) -> None:
    """Refuses datasets that do not fit together, or into the file."""
    positions, dim = places["tokens"][1][0], places["tokens"][1][-1]
    if not dim:  # any number of positions would fit into the file
        raise _RefusedError("tokens have no dimension")
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "keys": ((rows, KEY_BYTES), "|u1"),
        "operations": ((rows,), "S"),
        "offsets": ((rows + 1,), "<i8"),
        "tokens": ((positions, dim), "<f2"),
        "pooled": ((rows, pools, dim), "<f2"),
    }
    if schema.SHARED in places:
        shapes[schema.SHARED] = ((rows, *places[schema.SHARED][1][1:2]), "<f2")
    for name, (shape, wanted) in shapes.items():
        dtype, have, offset = places[name]
        same = dtype.kind == "S" if wanted == "S" else dtype == np.dtype(wanted)
        count = math.prod(have)
        if have != shape or not same or count * dtype.itemsize > size:
            raise _RefusedError(f"{name} is {have} {dtype}, expected {shape} {wanted}")
        if count and offset is None:
            raise _RefusedError(f"{name} has no storage")


# What HDF5, its binding and NumPy raise of a file that was made or damaged by somebody else.
UNREADABLE = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    NotImplementedError,
)


def _bytes_of(owner: Any, name: bytes) -> NDArray[np.bytes_]:
    """An attribute of fixed-length bytes; h5py's low level, since a cache has many shards.

    Raises:
        ValueError: It is of another type, or claims to be large.
    """
    attribute = h5py.h5a.open(owner, name)
    if attribute.dtype.kind != "S":
        raise ValueError(f"attribute {name.decode()} is {attribute.dtype}")
    if math.prod(attribute.shape) * attribute.dtype.itemsize > _MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {name.decode()} is {attribute.shape} {attribute.dtype}")
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    return value


def _map_arrays(path: Path, places: dict[str, _Place], size: int) -> dict[str, NDArray[Any]]:
    """Arrays on one copy-on-write map of a file: processes share it, none can change the file."""
    import torch  # its maps keep no descriptor, those of Python before 3.13 do

    try:
        mapped = torch.from_file(os.fsdecode(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        check_size(path, size)  # a merge may have removed it just now
        raise limit_error(path, str(error).splitlines()[0].rpartition(": ")[2]) from error
    content = mapped.numpy()
    parts: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape, offset) in places.items():
        if offset is None or not math.prod(shape):  # HDF5 stores nothing of an empty dataset
            parts[name] = np.empty(shape, dtype)
            continue
        array: NDArray[Any] = np.ndarray(shape, dtype, content.data, offset)
        parts[name] = array if array.flags.aligned else array.copy()
    return parts
