"""Parquet, Arrow and webdataset shards as tables: columns, cells, pictures, class names."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.config.sections import ColumnSettings, DataSettings
from mmsa_cache.data.picture_paths import read_picture_inside
from mmsa_cache.data.tables import Cell, arrow_table, open_table
from mmsa_cache.errors import DataError
from tests.support.parquet_pictures import CELL, PICTURES, add

NAMES = ["negative", "neutral", "positive"]
FEATURES = {
    "image": {"_type": "Image"},
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
}


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        new = pa.ipc.new_file if path.stem == "file" else pa.ipc.new_stream
        with new(str(path), table.schema) as file:
            file.write_table(table, max_chunksize=2)
    return path


def read(path: Path, **columns: str) -> tuple[list[dict[str, Cell]], list[Any]]:
    noted: list[Any] = []
    data = DataSettings(root=path.parent, columns=ColumnSettings(**columns))
    table = open_table(path, path.parent, data, lambda *problem: noted.append(problem))
    records = list(table.records())
    assert [row for row, _ in records] == list(range(1, len(records) + 1))
    assert list(table.records()) == records  # a stream a call
    return [cells for _, cells in records], noted


@pytest.fixture(params=["t.parquet", "stream.arrow", "file.arrow"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def test_a_table_of_the_library_datasets(path: Path) -> None:
    cells = [{"bytes": picture, "path": "x.bmp"} for picture in PICTURES[:4]]
    columns = {
        "image": pa.array(cells, CELL),
        "text": ["a", "b", "c", None],
        "label": [2, 0, 1, -1],
    }
    about = json.dumps({"info": {"features": FEATURES}})
    write(path, pa.table(columns).replace_schema_metadata({"huggingface": about}))
    table = open_table(path, path.parent, DataSettings(root=path.parent), lambda *_: None)
    assert table.columns == ("image", "text", "label")
    assert table.names == {"label": tuple(NAMES)}
    records, _ = read(path)
    assert [cells["image"] for cells in records] == [f"{path.name}!/image/{n}" for n in range(4)]
    assert [cells["text"] for cells in records] == ["a", "b", "c", None]
    assert [cells["label"] for cells in records] == [2, 0, 1, None]


def test_class_names_stand_in_a_file_beside(path: Path) -> None:
    write(path, pa.table({"image": ["a.jpg"], "text": ["a"], "label": [1]}))
    (path.parent / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    table = open_table(path, path.parent, DataSettings(root=path.parent), lambda *_: None)
    assert table.names == {"label": tuple(NAMES)}
    (path.parent / "dataset_info.json").write_text('{"features": [1]}')
    table = open_table(path, path.parent, DataSettings(root=path.parent), lambda *_: None)
    assert table.names == {}


def test_pictures_inside_beside_or_none(path: Path) -> None:
    cells = [None, {"bytes": PICTURES[0], "path": None}, {"bytes": None, "path": "img/1.jpg"}]
    columns = {"image": pa.array(cells, CELL), "text": ["a", "b", "c"], "more": [[1], [2], [3]]}
    records, _ = read(write(path, pa.table(columns)))
    assert [cells["image"] for cells in records] == ["", f"{path.name}!/image/1", "img/1.jpg"]
    assert all("more" not in cells for cells in records)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_bytes_are_pictures(path: Path, kind: pa.DataType) -> None:
    pictures = pa.array([PICTURES[0], None, PICTURES[2]], kind)
    records, _ = read(write(path, pa.table({"pic": pictures, "text": ["a"] * 3})), image="pic")
    places = [f"{path.name}!/pic/0", "", f"{path.name}!/pic/2"]
    assert [cells["pic"] for cells in records] == places


def test_no_rows(path: Path) -> None:
    assert read(write(path, pa.table({"text": ["a"], "image": ["a.jpg"]}).slice(1)))[0] == []


def test_other_encodings_and_names_with_dots(tmp_path: Path) -> None:
    table = pa.table({"a.text": ["a", "ab", "abc"], "a.pic": PICTURES[:3]})
    pq.write_table(
        table,
        tmp_path / "t.parquet",
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding={"a.text": "DELTA_BYTE_ARRAY"},
        compression="brotli",
    )
    records, _ = read(tmp_path / "t.parquet", text="a.text", image="a.pic")
    assert [cells["a.text"] for cells in records] == ["a", "ab", "abc"]
    for row, cells in enumerate(records):
        assert read_picture_inside(tmp_path, str(cells["a.pic"]), 1 << 16) == PICTURES[row]


def test_only_pictures_are_read_without_any_other_column(path: Path) -> None:
    records, _ = read(write(path, pa.table({"image": [PICTURES[0]] * 5})))
    assert [cells["image"] for cells in records] == [f"{path.name}!/image/{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None, "a"]), ["a", None, "a"]),
        (pa.array(["a", None, "a"], pa.large_string()), ["a", None, "a"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([b"a", None, b"\xc3\xa4"]), ["a", None, "ä"]),
        (pa.array([b"\xff", None, b"b"]), ["\udcff", None, "b"]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array([1, None, 3], pa.uint8()), [1, None, 3]),
        (pa.array([1.0, None, 2.5], pa.float32()), [1.0, None, 2.5]),
        (pa.array([1, None, 2]).cast(pa.decimal128(21, 2)), [1.0, None, 2.0]),
        (pa.nulls(3), [None] * 3),
    ],
)
def test_cells(path: Path, values: pa.Array, expected: list[Cell]) -> None:
    table = pa.table({"image": ["a.jpg"] * 3, "text": ["a"] * 3, "label": values})
    records, _ = read(write(path, table))
    assert [cells["label"] for cells in records] == expected


def test_bytes_that_are_no_utf_8_in_a_column_of_texts(path: Path) -> None:
    raw = pa.array([b"a", b"t\xff", None])
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    records, _ = read(write(path, pa.table({"text": texts, "image": ["a.jpg"] * 3})))
    assert [cells["text"] for cells in records] == ["a", "t\udcff", None]


@pytest.mark.parametrize("encode", [False, True])
def test_a_text_that_is_too_long_is_cut_and_still_too_long(path: Path, encode: bool) -> None:
    texts = pa.array(["x" * (3 << 20), "y"])
    texts = texts.dictionary_encode() if encode else texts
    records, _ = read(write(path, pa.table({"text": texts, "image": ["a.jpg"] * 2})))
    assert 1 << 20 < len(str(records[0]["text"])) < 2 << 20
    assert records[1]["text"] == "y"


def test_a_column_that_is_of_no_use(path: Path) -> None:
    write(path, pa.table({"caption": [["a", "b"]], "image": ["a.jpg"], "alt": ["a"]}))
    with pytest.raises(DataError, match=r"column 'caption' holds list<\w+: string>") as caught:
        read(path)
    assert "--column text=NAME" in caught.value.hint
    assert read(path, text="alt")[0] == [{"alt": "a", "image": "a.jpg"}]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.tar"])
def test_what_is_no_such_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"guid,tag\n" * 100)
    with pytest.raises(DataError, match=f"{name}: it is no"):
        read(tmp_path / name)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            add(tar, name, content)
    return path


def test_a_shard_of_webdataset(tmp_path: Path) -> None:
    members = {
        "./000.jpg": PICTURES[0],
        "./000.txt": b" a text\n",
        "./000.cls": b"1",
        "./._000.jpg": b"of a Mac",
        "./001.json": b'{"text": "b", "label": "good", "tags": [1], "likes": 3}',
        "./001.PNG": PICTURES[1],
        "./002.txt": "ä".encode(),
        "./003.npy": b"what is not read",
    }
    records, noted = read(shard(tmp_path / "s.tar", members))
    assert records == [
        {"__key__": "000", "image": "s.tar!/000.jpg", "text": "a text", "label": "1"},
        {"__key__": "001", "text": "b", "label": "good", "likes": 3, "image": "s.tar!/001.PNG"},
        {"__key__": "002", "text": "ä"},
    ]
    assert not noted


@pytest.mark.parametrize(
    ("pictures", "keys"),
    [
        (["0.img.jpg", "1.img.jpg"], ["0", "1"]),
        (["v1.0.jpg", "v1.1.jpg"], ["v1.0", "v1.1"]),
        (["a/0.jpg", "b/0.jpg"], ["a_0", "b_0"]),
    ],
)
def test_keys_of_a_shard(tmp_path: Path, pictures: list[str], keys: list[str]) -> None:
    members = {}
    for name in pictures:
        members |= {name: PICTURES[0], name.replace(".img", "").replace(".jpg", ".txt"): b"a"}
    records, _ = read(shard(tmp_path / "s.tar", members))
    assert [cells["__key__"] for cells in records] == keys
    assert [cells["image"] for cells in records] == [f"s.tar!/{name}" for name in pictures]
    assert all(cells["text"] == "a" for cells in records)


def test_what_is_wrong_in_a_shard(tmp_path: Path) -> None:
    members = {
        "0.jpg": PICTURES[0],
        "0.txt": b"x" * (1 << 20) + b"y",
        "1.jpg": PICTURES[1],
        "1.json": b"{",
        "2.jpg": PICTURES[1],
        "2.txt": b"\xff",
        "3.jpg": PICTURES[1],
        "3.json": b"[1]",
    }
    records, noted = read(shard(tmp_path / "s.tar", members))
    assert [row for row, *_ in noted] == [1, 2, 3, 4] * 2  # of each stream
    assert [cells["image"] for cells in records] == [f"s.tar!/{n}.jpg" for n in range(4)]
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"s.tar: it is (cut off|no tar, or damaged)"):
        read(tmp_path / "s.tar")


def test_a_member_never_takes_more_room_than_it_has(tmp_path: Path) -> None:
    """A header that states an exabyte of names."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 60
    file = io.BytesIO(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2000))
    (tmp_path / "s.tar").write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"s.tar: it is no tar, or damaged"):
        read(tmp_path / "s.tar")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_headers_of_headers_are_no_tar(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 10
    one = entry.tobuf(tarfile.GNU_FORMAT) + b"10 path=a\n".ljust(512, b"\0")
    (tmp_path / "s.tar").write_bytes(3000 * one)
    with pytest.raises(DataError, match=r"s.tar: it is no tar, or damaged"):
        read(tmp_path / "s.tar")


def test_members_that_are_never_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a", tarfile.DIRTYPE), ("0.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("../1.txt", "/2.txt", "3.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    records, noted = read(path)
    assert [cells["text"] for cells in records] == ["x"]
    assert {(cause, name) for _, cause, name in noted} == {
        ("a member that is no plain file, or leads out of the shard", name)
        for name in ("0.jpg", "../1.txt", "/2.txt")
    }


def test_texts_that_rows_share_do_not_take_more_than_the_file_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"text": ["many words " * 500] * 400, "image": ["0.jpg"] * 400})
    path = write(tmp_path / "t.parquet", table)
    pq.write_table(table, path)
    assert len(read(path)[0]) == 400
    monkeypatch.setattr(arrow_table, "_MANY_TEXTS", 1 << 20)
    with pytest.raises(DataError, match="far more memory than the file"):
        read(path)
