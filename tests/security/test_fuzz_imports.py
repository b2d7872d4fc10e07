"""Damaged and made-up files of ``mmsa cache import``: nothing of them is unpickled."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.compose.imports.files import (
    ImportRequest,
    describe_differences,
    open_files,
    read_pieces,
)
from mmsa_cache.errors import DataError
from tests.support.fuzzing import EXAMPLES, Random, mutated, series
from tests.support.tally import Tally

LIMIT = 40
"""Rows of the store."""
RUN: list[str] = []


class Runs:
    """Would be noticed if it were unpickled."""

    def __reduce__(self) -> Any:
        return RUN.append, ("it ran",)


def rows_of(path: Path, modality: str = "text") -> None:
    """All that an import reads, before it publishes anything."""
    found = open_files(ImportRequest(modality, "odd", [path]), LIMIT)
    describe_differences(found)
    for source in found:
        assert source.guids is None or all(isinstance(guid, str) for guid in source.guids)
    for _, source, rows in read_pieces(found):
        assert rows.values.shape[-1] == source.dim
        assert rows.values.dtype.kind == "f"
        float(np.nansum(rows.values.astype(np.float64)[:2]))
        assert rows.offsets[-1] == len(rows.values)
    assert not RUN


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


FEATURES = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)
NPY = [
    npy(FEATURES),
    npy(FEATURES.astype(np.float16).reshape(2, 3, 4)),
    npy(FEATURES.astype(">f8")),
    npy(np.asfortranarray(FEATURES)),
    npy(np.array([Runs(), 1], object), allow_pickle=True),
]
DESCRIPTIONS = ("'<f4'", "'<f2'", "'>f8'", "'|O'", "'<U9'", "'|V8'", "'<f16'", "'<M8[ns]'", "'|b1'")
DESCRIPTIONS += ("[('a', '<f4')]", "('<f4', (3,))", "'<f4", "None", "0", "'|S0'", "'<U0'", "'<c8'")
SHAPES = (
    "(6, 4)",
    "(24,)",
    "()",
    "(0, 4)",
    "(6, 0)",
    "(-6, 4)",
    "(2**62, 4)",
    "(6, 4, 1)",
    "[6, 4]",
)
SHAPES += (
    "(True, 24)",
    "(6.0, 4)",
    "(99999999999999999999, 1)",
    "('6', 4)",
    "None",
    "(1,)*40",
    "24L",
)


def npy_of_a_header(chosen: Random) -> bytes:
    """An array whose header says anything, above some bytes; also of pickled objects."""
    order, more = (
        chosen.choice(("False", "False", "True", "1", "None")),
        chosen.choice(("", "'x': 1")),
    )
    said = (
        f"{{'descr': {chosen.choice(DESCRIPTIONS)}, 'fortran_order': {order}, "
        f"'shape': {chosen.choice(SHAPES)}, {more}}}"
    ).encode()
    if chosen.random() < 0.1:
        said = chosen.choice((b"[" * 3000, b"{" * 3000, b"9" * 5000, b"-" * 5000, b"\\\n", b"\0"))
    version = chosen.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    width = "<H" if version == (1, 0) else "<I"
    size = chosen.choice((len(said), len(said), len(said) + 9, 0, 65535))
    begin = b"\x93NUMPY" + bytes(version) + struct.pack(width, size) + said
    body = chosen.choice((FEATURES.tobytes(), pickle.dumps(Runs()), b"", bytes(500)))
    return begin + body


@EXAMPLES
def test_npy(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "odd.npy"

    def make(chosen: Random) -> bytes:
        return mutated(chosen, NPY) if chosen.random() < 0.5 else npy_of_a_header(chosen)

    def work(content: bytes) -> None:
        path.write_bytes(content)
        rows_of(path)

    tally("fuzzed .npy", examples, series(examples, make, work))


PARTS: dict[str, list[Any]] = {
    "features": [
        FEATURES,
        FEATURES.reshape(2, 3, 4),
        FEATURES[:0],
        FEATURES.astype(int),
        FEATURES[0],
    ],
    "guids": [
        np.array(list("abcdef")),
        np.array(list("abcdef"), "S"),
        np.arange(6),
        np.array(["a", Runs()] * 3, object),
        np.array(["x" * 5000] * 6),
        np.array(["\udcff"] * 6),
        np.array([b"\xff"] * 6),
        np.array(1),
    ],
    "offsets": [
        np.array([0, 1, 6]),
        np.array([0, 6, 3]),
        np.array([0, 1 << 62], np.uint64),
        np.array([(1 << 64) - 1, 6], np.uint64),
        np.array([-1, 6]),
        np.array([], int),
        np.array([0.0, 6.0]),
        np.array([Runs()], object),
    ],
    "lengths": [
        np.array([1, 5]),
        np.array([6, 0]),
        np.array([1 << 62, 1 << 62]),
        np.array([-1, 7]),
    ],
    "x": [np.array([Runs()], object)],
}


def npz(chosen: Random) -> bytes:
    """A zip of arrays that do not fit together, packed in any way."""
    file = io.BytesIO()
    kinds = (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    )
    with zipfile.ZipFile(file, "w", chosen.choice(kinds)) as archive:
        for name in ("features", *chosen.sample([*PARTS][1:], chosen.randrange(4))):
            array = chosen.choice(PARTS[name])
            data = npy(array, allow_pickle=True)
            if chosen.random() < 0.3:
                data = npy_of_a_header(chosen) if chosen.random() < 0.5 else mutated(chosen, [data])
            ending = chosen.choice((".npy", ".npy", ".npy", "", ".NPY", "/../../x.npy"))
            archive.writestr(name + ending, data)
    data = file.getvalue()
    return mutated(chosen, [data]) if chosen.random() < 0.4 else data


@EXAMPLES
def test_npz(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "odd.npz"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        rows_of(path)
        assert [of.name for of in tmp_path.iterdir()] == ["odd.npz"]

    tally("fuzzed .npz", examples, series(examples, npz, work))


VECTORS = FEATURES.tolist()
LISTS: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.list_(pa.float32()), VECTORS),
    (pa.list_(pa.float32(), 4), VECTORS),
    (pa.large_list(pa.float64()), VECTORS),
    (pa.list_(pa.float16()), [[np.float16(1)] * 4] * 6),
    (pa.list_(pa.float32()), [*VECTORS[:5], None]),
    (pa.list_(pa.float32()), [*VECTORS[:5], [1.0]]),
    (pa.list_(pa.float32()), [[]] * 6),
    (pa.list_(pa.float32()), [[None] * 4] * 6),
    (pa.list_(pa.int32()), [[1]] * 6),
    (pa.list_(pa.list_(pa.float32())), [VECTORS[:2]] * 6),
    (pa.list_(pa.list_(pa.float32())), [[], None, [[]], [None], VECTORS, [[1.0]]]),
    (pa.list_(pa.list_(pa.float32(), 4)), [VECTORS[:2]] * 6),
    (pa.list_(pa.list_(pa.list_(pa.float32()))), [[VECTORS]] * 6),
    (pa.string(), ["a"] * 6),
    (pa.float32(), [1.0] * 6),
)
GUIDS: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.string(), list("abcdef")),
    (pa.large_string(), list("abcdef")),
    (pa.int64(), list(range(6))),
    (pa.uint64(), [(1 << 64) - 1] * 6),
    (pa.string(), ["a", None, "b", "c", "d", "e"]),
    (pa.string(), ["x" * 5000] * 6),
    (pa.binary(), [b"\xff"] * 6),
    (pa.dictionary(pa.int8(), pa.string()), list("abcabc")),
    (pa.dictionary(pa.int8(), pa.int64()), list(range(6))),
    (pa.list_(pa.string()), [["a"]] * 6),
)
METADATA = (pa.struct([("image_path", pa.string())]), [{"image_path": "a.jpg"}] * 6)


def odd_parquet(chosen: Random) -> bytes:
    columns = {
        chosen.choice(("embedding", "embedding", "tokens", "x", "embedding.x")): chosen.choice(
            LISTS
        ),
        chosen.choice(("guid", "guid", "key", "image_path", "")): chosen.choice((*GUIDS, METADATA)),
    }
    arrays = [pa.array(values, kind) for kind, values in columns.values()]
    found = pa.Table.from_arrays(arrays, [*columns])
    sink = pa.BufferOutputStream()
    pq.write_table(
        found.slice(0, chosen.choice((6, 6, 6, 1, 0))),
        sink,
        row_group_size=chosen.choice((1, 4, 100)),
        compression=chosen.choice(("none", "snappy", "gzip", "zstd")),
        use_dictionary=chosen.random() < 0.5,
        data_page_version=chosen.choice(("1.0", "2.0")),
    )
    data = sink.getvalue().to_pybytes()
    return mutated(chosen, [data]) if chosen.random() < 0.6 else data


@EXAMPLES
def test_parquet(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "odd.parquet"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        rows_of(path)

    tally("fuzzed Parquet features", examples, series(examples, odd_parquet, work))


@EXAMPLES
def test_folders_of_clip_retrieval(tmp_path: Path, examples: int, tally: Tally) -> None:
    array, names = tmp_path / "text_emb/text_emb_0.npy", tmp_path / "metadata/metadata_0.parquet"
    array.parent.mkdir()
    names.parent.mkdir()

    def make(chosen: Random) -> tuple[bytes, bytes]:
        return npy(FEATURES) if chosen.random() < 0.8 else npy_of_a_header(chosen), odd_parquet(
            chosen
        )

    def work(content: tuple[bytes, bytes]) -> None:
        array.write_bytes(content[0])
        names.write_bytes(content[1])
        rows_of(tmp_path)

    tally("fuzzed folders of clip-retrieval", examples, series(examples, make, work))


@pytest.mark.parametrize("name", ["features", "guids", "offsets"])
def test_pickled_objects_are_refused_in_words(tmp_path: Path, name: str) -> None:
    parts = {"features": FEATURES, "guids": np.array(list("abcdef"))}
    parts[name] = np.array([Runs()] * 6, object)
    np.savez(tmp_path / "x.npz", **parts)
    with pytest.raises(DataError, match=f"{name}: it holds Python objects, which are never loaded"):
        rows_of(tmp_path / "x.npz")


def test_a_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    said = b"{'descr': '<f4', 'fortran_order': False, 'shape': (6L, 4L)}"
    header = b"\x93NUMPY\x01\0" + struct.pack("<H", len(said)) + said
    (tmp_path / "x.npy").write_bytes(header + FEATURES.tobytes())
    rows_of(tmp_path / "x.npy")
