"""Pictures inside Parquet, Arrow and tar files: read where they lie, within limits."""

from __future__ import annotations

import contextlib
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.data.containers import parquet as parquet_module
from mmsa_cache.data.files import LEADS_OUT
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.picture_paths import (
    member_path,
    read_picture,
    read_picture_inside,
    split_member_path,
    stat_picture_inside,
)
from mmsa_cache.errors import BadFileError
from tests.support.parquet_pictures import CELL, LIMIT, PICTURES, ROWS, add


def table() -> pa.Table:
    cells = [{"bytes": picture, "path": "a.bmp"} for picture in PICTURES]
    return pa.table({"image": pa.array(cells, CELL), "raw": PICTURES, "text": ["x"] * ROWS})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("containers")
    pq.write_table(table(), root / "a.parquet", row_group_size=50)
    with pa.ipc.new_stream(str(root / "s.arrow"), table().schema) as stream:
        stream.write_table(table(), max_chunksize=33)
    with pa.ipc.new_file(str(root / "f.arrow"), table().schema) as file:
        file.write_table(table(), max_chunksize=33)
    for kind, name in ((tarfile.PAX_FORMAT, "p.tar"), (tarfile.GNU_FORMAT, "g.tar")):
        with tarfile.open(root / name, "w", format=kind) as tar:
            for row, picture in enumerate(PICTURES):
                add(tar, f"./{'long' * 40}/{row}.bmp", picture)
    return root


def places(row: int) -> list[str]:
    columns = [f"{column}/{row}" for column in ("image", "raw")]
    found = [member_path(name, c) for name in ("a.parquet", "s.arrow", "f.arrow") for c in columns]
    return found + [member_path(name, f"{'long' * 40}/{row}.bmp") for name in ("p.tar", "g.tar")]


@pytest.mark.parametrize("kept", [parquet_module._MOST_KEPT, 300])
def test_every_picture_in_any_order_by_several_threads(
    root: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(parquet_module, "_MOST_KEPT", kept)
    wanted = [(name, row) for row in range(ROWS) for name in places(row)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            found = pool.map(lambda item: read_picture_inside(root, item[0], LIMIT), wanted)
            assert list(found) == [PICTURES[row] for _, row in wanted]
            random.Random(0).shuffle(wanted)
            wanted = wanted[:100]
    assert all(read_picture(root / name, LIMIT) == PICTURES[row] for name, row in wanted)


def test_pictures_in_order_are_decoded_about_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    values_of = parquet_module.picture_values
    monkeypatch.setattr(
        parquet_module,
        "picture_values",
        lambda column: decoded.append(len(column)) or values_of(column),
    )
    for row in range(ROWS):
        read_picture_inside(root, member_path("a.parquet", f"raw/{row}"), LIMIT)
    assert sum(decoded) <= ROWS


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.parquet!/image/120", "missing"),
        ("a.parquet!/image/x", "missing"),
        ("a.parquet!/image/-1", "missing"),
        ("a.parquet!/other/0", "missing"),
        ("s.arrow!/raw/120", "missing"),
        ("p.tar!/0.bmp", "missing"),
        ("none.tar!/0.bmp", "missing"),
        ("../up.tar!/0.bmp", "missing"),
    ],
)
def test_what_is_not_there(root: Path, name: str, reason: str) -> None:
    with pytest.raises(BadFileError, match=name.partition("!")[0]) as caught:
        read_picture_inside(root, name, LIMIT)
    assert caught.value.reason == reason


def test_limits_and_nulls(root: Path, tmp_path: Path) -> None:
    for name in places(ROWS - 1):
        with pytest.raises(BadFileError, match="more than the limit of 100") as caught:
            read_picture_inside(root, name, 100)
        assert caught.value.reason == "too large"
        assert stat_picture_inside(root, name, 100).st_size > 100  # of the file, which has no limit
    pq.write_table(pa.table({"raw": pa.array([None, b""], pa.binary())}), tmp_path / "n.parquet")
    for row, reason in enumerate(("missing", "empty file")):
        with pytest.raises(BadFileError) as caught:
            read_picture_inside(tmp_path, f"n.parquet!/raw/{row}", LIMIT)
        assert caught.value.reason == reason


def test_a_place_is_one_only_where_the_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.tar!").mkdir()
    (tmp_path / "x.tar!/a.bmp").write_bytes(PICTURES[0])
    assert read_picture_inside(tmp_path, "x.tar!/a.bmp", LIMIT) == PICTURES[0]
    (tmp_path / "note!").mkdir()
    (tmp_path / "note").write_bytes(b"text")
    assert split_member_path(tmp_path / "note!/a.bmp") is None
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "b.tar!/c.bmp", PICTURES[1])
    assert read_picture_inside(tmp_path, "x.tar!/b.tar!/c.bmp", LIMIT) == PICTURES[1]
    sample = Sample("g", 0, "", tmp_path / "x.tar!/b.tar!/c.bmp", "", "")
    assert sample.picture_name == "x.tar!/b.tar!/c.bmp"


def test_no_link_no_device_and_no_way_up_is_followed(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            add(tar, f"{kind.decode()}.bmp", kind=kind)
        for name in ("../up.bmp", "/abs.bmp", "a/../../up.bmp"):
            add(tar, name, PICTURES[0])
    for name in ("1.bmp", "2.bmp", "3.bmp", "6.bmp", "../up.bmp", "/abs.bmp", "up.bmp", "abs.bmp"):
        with pytest.raises(BadFileError, match="no picture is there"):
            read_picture_inside(tmp_path, member_path("t.tar", name), LIMIT)
    (inside / "t.tar").symlink_to(tmp_path / "t.tar")
    for name in ("t.tar!/1.bmp", "../t.tar!/1.bmp"):
        with pytest.raises(BadFileError, match=LEADS_OUT):
            read_picture_inside(inside, name, LIMIT)


def test_what_would_take_far_more_memory_than_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "_LARGE_PAGE", 1 << 16)
    bomb = pa.table({"raw": [b"BM" + bytes(1 << 20)]})
    pq.write_table(bomb, tmp_path / "b.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(BadFileError, match="in memory"):
        read_picture_inside(tmp_path, "b.parquet!/raw/0", LIMIT)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for name, new in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with new(str(tmp_path / name), bomb.schema, options=options) as stream:
            stream.write_table(bomb)
        with pytest.raises(BadFileError, match="compressed"):
            read_picture_inside(tmp_path, f"{name}!/raw/0", LIMIT)


@pytest.mark.parametrize("name", ["a.parquet", "s.arrow", "f.arrow", "p.tar", "g.tar"])
def test_damage_is_an_error_and_never_more(root: Path, tmp_path: Path, name: str) -> None:
    """Cut off, and with bytes changed where it describes itself."""
    whole = (root / name).read_bytes()
    chance = random.Random(name)
    wanted = next(found for found in places(5) if found.startswith(name))
    for turn in range(60):
        data = bytearray(whole)
        if turn % 4 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(turn % 4):
            end = len(data) if turn % 8 < 4 else 2000
            at = chance.randrange(end)
            data[-at if name == "a.parquet" else at] = chance.randrange(256)
        (tmp_path / f"{turn}{name}").write_bytes(data)
        with contextlib.suppress(BadFileError):
            read_picture_inside(tmp_path, f"{turn}{wanted}", LIMIT)


def test_a_compressed_shard_names_what_unpacks_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(BadFileError, match=r"unpack it: gunzip -c x.tar > plain-x.tar"):
        read_picture_inside(tmp_path, "x.tar!/a.bmp", LIMIT)
