"""Small files that claim much: nothing is made of a claim before it is weighed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract.encoders.tokenizer import tokenize
from mmsa_cache.compose.imports.arrays import open_npz
from mmsa_cache.compose.imports.source import RefusedError
from mmsa_cache.compose.imports.tables import open_clip_retrieval, open_parquet
from mmsa_cache.data.files import check_encoding
from mmsa_cache.errors import DataError, ModelError
from tests.support.data_folders import mmsa, noise, saved

ROWS = 80


def write(path: Path, **columns: pa.Array) -> Path:
    """A table whose repeated values take a few bytes."""
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        write_statistics=False,
        store_schema=False,
        dictionary_pagesize_limit=1 << 30,
    )
    assert path.stat().st_size < 10_000
    return path


def repeated(name: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([name]))


def numbers(lists: list[list[float]]) -> pa.Array:
    return pa.array(lists, pa.list_(pa.float32()))


def test_one_name_does_not_become_many(tmp_path: Path) -> None:
    """Of 40 MB: eighty times that was made of 2 kB."""
    path = write(
        tmp_path / "a.parquet", guid=repeated("a" * (40 << 20)), embedding=numbers([[0.0]] * ROWS)
    )
    with pytest.raises(RefusedError, match=r"guid claims 4\d+ bytes in a file of \d+"):
        open_parquet(path, ROWS)
    (tmp_path / "img_emb").mkdir()
    (tmp_path / "metadata").mkdir()
    np.save(tmp_path / "img_emb/img_emb_0.npy", np.zeros((ROWS, 2), np.float16))
    write(tmp_path / "metadata/metadata_0.parquet", image_path=repeated("a" * (40 << 20)))
    with pytest.raises(RefusedError, match="image_path claims"):
        open_clip_retrieval(tmp_path, "image", ROWS)


def test_a_name_too_long_is_not_repeated(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", guid=repeated("a" * (1 << 20)), embedding=numbers([[0.0]] * ROWS)
    )
    with pytest.raises(RefusedError, match="guid: a name is too long"):
        open_parquet(path, ROWS)


def test_one_row_does_not_hold_what_all_may(tmp_path: Path) -> None:
    row = numbers([[0.5] * 8] * (1 << 20))
    offsets = pa.array([0] * ROWS + [1 << 20], pa.int32())
    tokens = pa.ListArray.from_arrays(offsets, row)
    path = write(
        tmp_path / "a.parquet", guid=pa.array([str(i) for i in range(ROWS)]), tokens=tokens
    )
    with pytest.raises(RefusedError, match=r"tokens claims \d+ bytes in a file of"):
        open_parquet(path, ROWS)


def test_descriptions_are_not_read_whatever_their_length(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 40)
        file.write((2**31 - 1).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(RefusedError, match="its footer claims 2147483647 bytes"):
        open_parquet(path, ROWS)
    size, path = 10 << 30, tmp_path / "a.npz"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 0))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1))
        file.write(
            struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
        )
    with pytest.raises(RefusedError, match=f"it claims a part of {size} bytes"):
        open_npz(path, ROWS)


@pytest.mark.parametrize(
    "name", ["punycode", "PunyCode", "idna", "undefined", "a\0b", "rot13", "x" * 10_000]
)
def test_encodings_that_are_none_of_text_files(name: str) -> None:
    with pytest.raises(DataError, match="Unknown text encoding") as caught:
        check_encoding(name)
    assert len(str(caught.value)) < 300


def test_problems_do_not_quote_a_whole_file(tmp_path: Path) -> None:
    data = tmp_path / "posts"
    data.mkdir()
    (data / "a.jpg").write_bytes(saved(noise(0)))
    for name, content in (
        ("train.txt", "guid,mood" + ",positive" * 100_000),
        ("train.csv", "text,shot,label" + "".join(f",c{i}" for i in range(20_000))),
        ("train.csv", "text,image,label," + "c" * 100_000 + ",label"),
    ):
        (data / name).write_text(content + "\nx,a.jpg,positive\n")
        shown = mmsa(tmp_path, "check", "posts", code=3).output
        assert len(shown) < 10_000
        assert f"{name}:1: " in shown
        (data / name).unlink()
    (data / "train.csv").write_text(f"text,image,label,{'c' * 100_000}\nx,a.jpg,positive,\n")
    assert len(mmsa(tmp_path, "check", "posts").output) < 10_000


class _PanicError(BaseException):
    """What the tokenizers library raises where its own code panics."""


_PanicError.__name__ = "PanicException"


def test_a_tokenizer_that_panics_is_an_error() -> None:
    def panics(*_: object, **__: object) -> None:
        raise _PanicError("Onig: Regex search error")

    with pytest.raises(ModelError, match="The tokenizer cannot read a text: Onig"):
        tokenize(panics, ["a"])

    def ends(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize(ends, ["a"])


@pytest.mark.parametrize("table", ["{} = 1", "[{}]", "x = {{ {} = 1 }}"])
def test_keys_of_many_parts_are_refused(tmp_path: Path, table: str) -> None:
    """100 kB of ``a.a.a…`` took eight gigabytes."""
    (tmp_path / "mmsa.toml").write_text("seed = 1\n" + table.format(".".join("a" * 50_000)))
    assert "line 2 holds more than 100 dots" in mmsa(tmp_path, "cache", "ls", code=2).output
    (tmp_path / "mmsa.toml").unlink()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/s.toml").write_text(table.format('."a"' * 50_000))
    shown = mmsa(tmp_path, "search", "--study", "s", code=2).output
    assert "line 1 holds more than 100 dots" in shown
