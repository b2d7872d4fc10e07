"""Features in ``.npy`` and ``.npz``, read as streams: no memory is allocated for false headers.

Nothing is unpickled. A file that ends early, or has more data than its header says, is refused.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.files.untrusted import open_regular

from .source import (
    MAX_GUID_BYTES,
    MAX_ROW_BYTES,
    FeatureFile,
    RefusedError,
    Rows,
    check_form,
    equal_rows,
    rows_at_once,
    spans,
)

_MAX_HEADER_CHARS = 10_000
"""Characters."""
_MAX_DIRECTORY_BYTES = 1 << 20
"""Bytes of the list of arrays in an ``.npz``, which has few of them."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    SyntaxError,
    RuntimeError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of NumPy and zipfile for invalid files."""


@contextlib.contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turns errors of reading into a `RefusedError`."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        raise RefusedError(f"it cannot be read: {reason}") from error


class ArrayStream:
    """An array in NumPy's format, read from its beginning.

    Raises:
        RefusedError: The format is invalid, or the header contradicts the size.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        with refuse_unreadable():
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"version {version} of its format is none of numbers and texts")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                shape, fortran, self.dtype = _HEADERS[version](
                    file, max_header_size=_MAX_HEADER_CHARS
                )
            start = file.tell()
        self._file = file
        self.shape: tuple[int, ...] = shape
        if self.dtype.hasobject:
            raise RefusedError("it holds Python objects, which are never loaded")
        if any(type(count) is not int or count < 0 for count in shape):
            raise RefusedError(f"its shape is {shape}")
        if fortran and len(shape) > 1:
            raise RefusedError("its columns are stored first: save np.ascontiguousarray of it")
        expected = math.prod(shape) * self.dtype.itemsize
        if expected != size - start:
            raise RefusedError(
                f"its header says {shape} {self.dtype}, {expected} bytes; {size - start} are there"
            )

    def take(self, count: int) -> NDArray[Any]:
        """Reads the next items along the first axis.

        Raises:
            RefusedError: The file ends before.
        """
        size = math.prod((count, *self.shape[1:])) * self.dtype.itemsize
        with refuse_unreadable():
            data = self._file.read(size)
        if len(data) != size:
            raise RefusedError("it ends early")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def open_npy(path: Path) -> FeatureFile:
    """Opens an array (rows, dim) or (rows, positions, dim), whose rows have no names.

    Raises:
        RefusedError: It cannot be imported.
    """
    with _open_stream(path) as stream:
        shape, dtype = stream.shape, stream.dtype
    check_form(shape, dtype)

    def pieces() -> Iterator[Rows]:
        with _open_stream(path) as stream:
            if (stream.shape, stream.dtype) != (shape, dtype):
                raise RefusedError("it changed meanwhile")
            yield from _equal_pieces(stream)

    return FeatureFile(path, shape[0], shape[-1], len(shape) == 3, dtype, None, pieces)


@contextlib.contextmanager
def _open_stream(path: Path) -> Iterator[ArrayStream]:
    with contextlib.ExitStack() as stack:
        with refuse_unreadable():
            file = stack.enter_context(open_regular(path))
            size = os.fstat(file.fileno()).st_size
        yield ArrayStream(file, size)


def _equal_pieces(stream: ArrayStream) -> Iterator[Rows]:
    rows, row_bytes = stream.shape[0], math.prod(stream.shape[1:]) * stream.dtype.itemsize
    step = rows_at_once(row_bytes)
    for first in range(0, rows, step):
        yield equal_rows(stream.take(min(step, rows - first)))


def open_npz(path: Path, limit: int) -> FeatureFile:
    """Opens arrays ``features`` and ``guids``, and ``offsets`` or ``lengths`` of positions.

    Args:
        path: The file.
        limit: Most rows that can belong to the store.

    Raises:
        RefusedError: It holds other arrays.
    """
    with _open_zip(path) as file:
        names = set(file.namelist())
        if len(names) < len(file.infolist()):
            raise RefusedError("it holds two arrays of one name")
        if "features.npy" not in names:
            raise RefusedError(f"it holds {sorted(names)[:10]}, expected features and guids")
        with _open_member(file, "features") as stream:
            shape, dtype = stream.shape, stream.dtype
        check_form(shape, dtype)
        guids = _guids(file, limit) if "guids.npy" in names else None
        offsets = _offsets(file, names, shape, limit)
    if offsets is not None:
        longest = int(np.diff(offsets).max())
        if longest * shape[-1] * dtype.itemsize > MAX_ROW_BYTES:
            raise RefusedError(f"a row has {longest} positions: too many for features")

    def pieces() -> Iterator[Rows]:
        with _open_zip(path) as file, _open_member(file, "features") as stream:
            if (stream.shape, stream.dtype) != (shape, dtype):
                raise RefusedError("it changed meanwhile")
            if offsets is None:
                yield from _equal_pieces(stream)
                return
            for first, end in spans(offsets, shape[-1] * dtype.itemsize):
                own = offsets[first : end + 1] - offsets[first]
                yield Rows(stream.take(int(own[-1])), own)

    rows = shape[0] if offsets is None else len(offsets) - 1
    if guids is not None and len(guids) != rows:
        raise RefusedError(f"it has {rows} rows and {len(guids)} guids")
    tokens = offsets is not None or len(shape) == 3
    return FeatureFile(path, rows, shape[-1], tokens, dtype, guids, pieces)


@contextlib.contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        with refuse_unreadable():
            plain = stack.enter_context(_BoundedReader(open_regular(path).detach()))
            file = stack.enter_context(zipfile.ZipFile(plain))
        plain.most = MAX_ROW_BYTES
        yield file


class _BoundedReader(io.BufferedReader):
    """A file that limits the size of a single read."""

    most = _MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size > self.most:
            raise ValueError(f"it claims a part of {size} bytes")
        return super().read(size)


@contextlib.contextmanager
def _open_member(file: zipfile.ZipFile, name: str) -> Iterator[ArrayStream]:
    with contextlib.ExitStack() as stack:
        with refuse_unreadable():
            info = file.getinfo(f"{name}.npy")
            # Other methods unpack the whole member, whatever its size.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed in another way than NumPy does it")
            member = stack.enter_context(file.open(info))
        try:
            yield ArrayStream(member, info.file_size)
        except RefusedError as error:
            raise RefusedError(f"{name}: {error}") from error


def _guids(file: zipfile.ZipFile, limit: int) -> list[str]:
    with _open_member(file, "guids") as stream:
        if len(stream.shape) != 1 or stream.dtype.kind not in "USiu":
            raise RefusedError(f"it is {stream.shape} {stream.dtype}, expected are names")
        if stream.shape[0] > limit:
            raise RefusedError(f"it has {stream.shape[0]} names, the store's splits have {limit}")
        if stream.dtype.itemsize > 4 * MAX_GUID_BYTES:
            raise RefusedError("its names are too long")
        with refuse_unreadable():
            names = stream.take(stream.shape[0])
            if names.dtype.kind == "U":  # raises for numbers that are no characters
                names.astype(names.dtype.newbyteorder("<")).tobytes().decode("utf-32-le")
            return [v.decode() if isinstance(v, bytes) else str(v) for v in names.tolist()]


def _offsets(
    file: zipfile.ZipFile, names: set[str], shape: tuple[int, ...], limit: int
) -> NDArray[np.int64] | None:
    """Positions before each row, (rows + 1,); None without ``offsets`` and ``lengths``."""
    name = next((name for name in ("offsets", "lengths") if f"{name}.npy" in names), None)
    if name is None:
        return None
    with _open_member(file, name) as stream:
        if len(stream.shape) != 1 or stream.dtype.kind not in "iu" or not stream.shape[0]:
            raise RefusedError(f"it is {stream.shape} {stream.dtype}, expected are whole numbers")
        if stream.shape[0] > limit + 1:
            raise RefusedError(f"it has {stream.shape[0]} rows, the store's splits have {limit}")
        values = stream.take(stream.shape[0])
    if len(shape) != 2:
        raise RefusedError(f"features are {shape}, with {name} they are (positions, dim)")
    # Checked before they are added up: sums of huge numbers overflow.
    if (values > shape[0]).any() or (values < 0).any():
        raise RefusedError(f"{name}: they leave the {shape[0]} positions of features")
    values = values.astype(np.int64)
    offsets = np.cumsum([0, *values], dtype=np.int64) if name == "lengths" else values
    if offsets[0] != 0 or offsets[-1] != shape[0] or (np.diff(offsets) < 0).any():
        raise RefusedError(f"{name}: they do not divide the {shape[0]} positions of features")
    if len(offsets) < 2:
        raise RefusedError(f"{name}: there is no row")
    return offsets
