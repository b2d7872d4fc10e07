"""Reads the HDF5 files of shards without trusting them.

A file must be exactly what `shard_bytes` writes: plain, contiguous, unfiltered datasets of its own.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

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
"""Limit of remote shards; merged ones of the smallest features have half of that."""


def check_size(path: Path, size: int) -> os.stat_result:
    """``lstat`` of a file that must have so many bytes.

    Raises:
        DamagedCacheError: It is missing, not a regular file, or of another size.
    """
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise DamagedCacheError(f"{path} is missing.", MISSING) from error
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        raise DamagedCacheError(f"{path} is {kind}, not a shard.", REPAIR)
    if status.st_size != size:
        raise DamagedCacheError(f"{path} has {status.st_size} bytes, sealed were {size}.", REPAIR)
    return status


def check_bytes(folder: Path, entry: ShardEntry) -> None:
    """Checks the hash of a shard.

    Raises:
        DamagedCacheError: It is not what was sealed.
    """
    path = folder / entry.file
    check_size(path, entry.bytes)
    try:
        digest = hashing.file_sha256(path)
    except OSError as error:
        raise read_error(path, error) from error
    if digest != entry.sha256:
        raise DamagedCacheError(
            f"{path} was changed after it was sealed "
            f"(sha256 {digest[:12]}…, sealed {entry.sha256[:12]}…).",
            REPAIR,
        )


def read_entry(path: Path) -> ShardEntry | None:
    """Makes the index entry of a file; None if it is no shard named by its content.

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
        cause = read_error(path, error)
        if not isinstance(cause, DamagedCacheError):
            raise cause from error
        return None
    return entry if entry.file == path.name else None


def read_keys(content: Any, size: int, fingerprint: str) -> Keys:
    """Reads and checks the keys of a shard, and nothing else of it.

    Args:
        content: The file, open for reading.
        size: Its bytes.
        fingerprint: Fingerprint of the encoder that it must belong to.

    Raises:
        ValueError: It is no such shard.
        Exception: As reading it raises.
    """
    with h5py.File(content, "r") as file:
        group = _open_root(file, fingerprint)
        dtype, shape, offset = _extent(_open_dataset(group, "keys"))
    count = math.prod(shape)
    most = min(size, _MAX_KEYS_BYTES)
    if dtype != np.uint8 or shape[1:] != (KEY_BYTES,) or not 0 < count <= most or offset is None:
        raise ValueError(f"keys are {shape} {dtype}")
    content.seek(offset)
    return np.frombuffer(content.read(count), np.uint8).reshape(-1, KEY_BYTES)


def map_shard(path: Path, rows: int, size: int, fingerprint: str) -> Shard:
    """Maps a shard into memory without trusting it; no descriptor is kept.

    Args:
        path: The file.
        rows: Number of rows that it must have.
        size: Bytes that it must have.
        fingerprint: Fingerprint of the encoder that it must belong to.

    Raises:
        DamagedCacheError: It is not a file of `shard_bytes.encode`.
        DeviceError: The system has no descriptor, map or memory left.
    """
    check_size(path, size)
    try:
        with open_regular(path, links=False) as content, h5py.File(content, "r") as file:
            group = _open_root(file, fingerprint)
            datasets = {name: _open_dataset(group, name) for name in _dataset_names(group)}
            names = _read_attribute(datasets["pooled"], b"pools").tolist()
            pools = tuple(name.decode() for name in names)
            extents = {name: _extent(dataset) for name, dataset in datasets.items()}
        _check_shapes(extents, rows, len(pools), size)
        arrays = _map_arrays(path, extents, size)
        return Shard(
            arrays["keys"],
            [operation.decode() for operation in arrays["operations"].tolist()],
            arrays["offsets"],
            arrays["tokens"],
            arrays["pooled"],
            pools,
            arrays.get(schema.SHARED),
        )
    except _RefusedError as error:
        raise DamagedCacheError(f"{path}: {error}.", REPAIR) from error
    except MemoryError as error:
        raise read_error(path, error) from error
    except UNREADABLE as error:  # such as offsets beyond the end of the file
        cause = read_error(path, error)
        if isinstance(cause, DamagedCacheError):
            cause = DamagedCacheError(f"{path}: is not a readable shard ({error}).", REPAIR)
        raise cause from error


class _RefusedError(ValueError):
    """A shard is not what this program writes."""


class _Extent(NamedTuple):
    """Where and how a dataset is stored in its file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None
    """None for a dataset without elements."""


def _extent(dataset: Any) -> _Extent:
    return _Extent(dataset.dtype, dataset.shape, dataset.get_offset())


def _open_root(file: h5py.File, fingerprint: str) -> Any:
    """The root group of a shard of this encoder."""
    group = h5py.h5g.open(file.id, b"/")
    if _read_attribute(group, b"fingerprint").item().decode() != fingerprint:
        raise _RefusedError("belongs to another encoder (fingerprint)")
    return group


def _dataset_names(group: Any) -> list[str]:
    """Names of the datasets of a shard."""
    names = {name.decode() for name in group}
    if names - {schema.SHARED} != set(schema.DATASETS):
        raise _RefusedError(f"holds {sorted(names)[:20]}, expected {sorted(schema.DATASETS)}")
    return sorted(names)


def _open_dataset(group: Any, name: str) -> Any:
    """Opens a dataset that must be in the file itself, contiguous and unfiltered."""
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


def _check_shapes(extents: dict[str, _Extent], rows: int, pools: int, size: int) -> None:
    """Refuses datasets that do not fit together, or not into the file."""
    positions, dim = extents["tokens"].shape[0], extents["tokens"].shape[-1]
    if not dim:  # any number of positions would fit into the file
        raise _RefusedError("tokens have no dimension")
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "keys": ((rows, KEY_BYTES), "|u1"),
        "operations": ((rows,), "S"),
        "offsets": ((rows + 1,), "<i8"),
        "tokens": ((positions, dim), "<f2"),
        "pooled": ((rows, pools, dim), "<f2"),
    }
    if schema.SHARED in extents:
        shapes[schema.SHARED] = ((rows, *extents[schema.SHARED].shape[1:2]), "<f2")
    for name, (shape, dtype_name) in shapes.items():
        dtype, shape_found, offset = extents[name]
        same = dtype.kind == "S" if dtype_name == "S" else dtype == np.dtype(dtype_name)
        count = math.prod(shape_found)
        if shape_found != shape or not same or count * dtype.itemsize > size:
            raise _RefusedError(f"{name} is {shape_found} {dtype}, expected {shape} {dtype_name}")
        if count and offset is None:
            raise _RefusedError(f"{name} has no storage")


# Errors of HDF5, h5py and NumPy on damaged or foreign files.
UNREADABLE = (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError)


def _read_attribute(owner: Any, name: bytes) -> NDArray[np.bytes_]:
    """Reads an attribute of fixed-length bytes by h5py's low-level interface, which is faster.

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


def _map_arrays(path: Path, extents: dict[str, _Extent], size: int) -> dict[str, NDArray[Any]]:
    """Maps arrays copy-on-write: processes share the pages and none can change the file."""
    import torch  # its maps keep no descriptor, unlike mmap before Python 3.13

    try:
        mapped = torch.from_file(os.fsdecode(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        check_size(path, size)  # a merge may have removed it just now
        raise limit_error(path, str(error).splitlines()[0].rpartition(": ")[2]) from error
    content = mapped.numpy()
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape, offset) in extents.items():
        if offset is None or not math.prod(shape):  # HDF5 does not store empty datasets
            arrays[name] = np.empty(shape, dtype)
            continue
        array: NDArray[Any] = np.ndarray(shape, dtype, content.data, offset)
        arrays[name] = array if array.flags.aligned else array.copy()
    return arrays
