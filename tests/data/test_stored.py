"""The file of a split: what is written reads back, and nothing else is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.data import plain_parquet, stored_split
from mmsa_cache.data.files import text_key
from mmsa_cache.data.pairs import Sample, read_sample_picture, sample_text
from mmsa_cache.data.stored_split import StoredSplit, read_split, split_path, write_split
from mmsa_cache.data.table import COLUMNS, SampleTable
from mmsa_cache.errors import (
    CacheNotFoundError,
    DamagedCacheError,
    DataError,
    DiskError,
    StaleCacheError,
)
from tests.support.faulty import Failing
from tests.support.tally import Tally

ABOUT = StoredSplit(
    split="train",
    layout="report",
    classes=("positive", "neutral", "negative"),
    note="made up",
    merged=1,
    dropped=2,
    aside=3,
    augmentation="report:47",
    copies={1: 4, 2: 1},
    told={"data": {"root": "../posts", "max_chars": None}, "seed": 47},
)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def post(number: int, **other: Any) -> Sample:
    text = f"post {number} 好"
    values = {
        "guid": f"g{number}",
        "label": number % 3,
        "text": text,
        "image_path": Path(f"/posts/pairs/g{number}.jpg"),
        "text_sha256": sha256(text),
        "image_sha256": sha256(f"picture {number}"),
        "text_key": text_key(text),
    }
    return Sample(**values | other)


def posts(count: int = 6) -> SampleTable:
    unlabelled = post(count, label=None, text="", text_sha256=sha256(""), text_key=None)
    return SampleTable.from_samples([*map(post, range(count)), unlabelled], Path("/posts"))


def write(folder: Path, table: SampleTable | None = None, about: StoredSplit = ABOUT) -> Path:
    path = split_path(folder, "train")
    write_split(path, about, table if table is not None else posts())
    return path


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert path == tmp_path / "data/train.parquet"
    about, table = read_split(path)
    assert about == ABOUT
    assert table.folder is None
    assert all(sample.image_path is None for sample in table)
    assert table.with_folder(Path("/posts")) == posts()
    assert list(table.with_folder(Path("/posts")))[2] == post(2)
    again = path.read_bytes()
    write(tmp_path, table)
    assert path.read_bytes() == again
    assert [file.name for file in path.parent.iterdir()] == ["train.parquet"]


def test_other_programs_read_it(tmp_path: Path) -> None:
    found = pq.read_table(write(tmp_path))
    assert found["guid"].to_pylist() == [f"g{n}" for n in range(7)]
    assert found["label"].to_pylist() == [0, 1, 2, 0, 1, 2, None]
    assert found["image"][1].as_py() == "pairs/g1.jpg"
    assert found["text_sha256"][0].as_py().hex() == sha256("post 0 好")


def test_many_rows_are_several_parts(tmp_path: Path) -> None:
    rows = 150_000
    guids = np.char.add("g", np.arange(rows).astype(str))
    digests = [hashlib.sha256(b"%d" % n).digest() for n in range(rows)]
    columns = [guids.tolist(), [None] * rows, guids.tolist(), digests, digests]
    table = SampleTable(pa.table([*columns, [d[:16] for d in digests], [None] * rows], COLUMNS))
    path = write(tmp_path, table)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert read_split(path)[1] == table
    assert path.stat().st_size < 130 * rows


def test_a_store_without_texts(tmp_path: Path) -> None:
    _, table = read_split(write(tmp_path, posts().without_texts()))
    assert not table.has_texts
    assert table[0].text is None
    assert table.groups().tolist() == posts().groups().tolist()
    assert table.digest({0: 1}) == posts().digest({0: 1})
    with pytest.raises(DataError, match="g0: its text is not available; this store was shared wi"):
        sample_text(table[0])
    with pytest.raises(DataError, match="g0: its picture is not available") as caught:
        read_sample_picture(table[0])
    assert caught.value.hint == "Give the data folder with --data DIR."


def test_a_failing_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    for step in range(1, 5):
        with pytest.raises(DiskError, match=r"train.parquet cannot be written"):
            write_split(path, ABOUT, posts(2), Failing(step, errno.EIO))
        assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["train.parquet"]


def refused(path: Path, match: str) -> None:
    with pytest.raises(DamagedCacheError, match=match) as caught:
        read_split(path)
    assert str(path) in caught.value.message
    assert caught.value.hint == "Copy the store again, or run mmsa extract."


def test_no_file_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFoundError, match=r"There is no .*train.parquet") as caught:
        read_split(split_path(tmp_path, "train"))
    assert caught.value.hint == "Run mmsa extract."


def test_a_pipe_or_a_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "pipe", "it is no regular file")
    refused(tmp_path / "folder", "Is a directory|no regular file")


def statement(path: Path) -> bytes:
    """What a file says beside its rows."""
    return plain_parquet.key_value_metadata(
        plain_parquet.read_footer(memoryview(path.read_bytes()))
    )[b"mmsa"]


def restated(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes a file again whose statement beside the rows is another one."""
    whole = json.loads(
        plain_parquet.key_value_metadata(plain_parquet.read_footer(memoryview(path.read_bytes())))[
            b"mmsa"
        ]
    )
    change(whole)
    table = read_split(path)[1].table
    path.write_bytes(plain_parquet.write_table(table, {b"mmsa": json.dumps(whole).encode()}))


@pytest.mark.parametrize("schema", [1, 3])
def test_another_schema_is_refused_by_number(tmp_path: Path, schema: int) -> None:
    path = write(tmp_path)
    restated(path, lambda whole: whole.update(schema=schema))
    with pytest.raises(StaleCacheError, match=f"has schema {schema}, this program writes 2") as e:
        read_split(path)
    assert "mmsa extract" in e.value.hint


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.update(schema="2"), "it is not the table of a split"),
        (lambda w: w.update(more=1), "it does not say what a split's table says"),
        (lambda w: w.update(sha256="0" * 64), "its content is not what was written"),
        (lambda w: w["about"].update(note="other"), "its content is not what was written"),
        (lambda w: w["about"].update(classes=["a", "a"]), "classes are not distinct names"),
        (lambda w: w["about"].update(copies={"3": 1}), "copies are not numbers of classes"),
        (
            lambda w: w["about"].update(split="../x"),
            "unknown split '../x'; valid: train, val, test",
        ),
        (lambda w: w["about"].update(merged=-1), "merged: -1, a number from 0 is expected"),
        (lambda w: w["about"].pop("layout"), "layout: missing"),
    ],
)
def test_a_statement_that_does_not_fit(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    path = write(tmp_path)
    restated(path, change)
    with pytest.raises(DamagedCacheError) as caught:
        read_split(path)
    assert str(path) in str(caught.value)
    assert match in str(caught.value)


@pytest.mark.parametrize("depth", [300, 900, 975, 990, 1000, 5000, 100_000])
def test_a_statement_nested_deeply_is_refused(tmp_path: Path, depth: int) -> None:
    path = write(tmp_path)
    nested = statement(path).replace(b'"../posts"', b"[" * depth + b"]" * depth)
    path.write_bytes(plain_parquet.write_table(posts().table, {b"mmsa": nested}))
    with pytest.raises(DamagedCacheError) as caught:
        read_split(path)
    assert str(path) in caught.value.message


def replaced(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = COLUMNS.get_field_index(name)
    return table.set_column(
        place, COLUMNS.field(place), pa.array(values, COLUMNS.field(place).type)
    )


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("guid", "g1", "a guid is there twice"),
        ("guid", "../x", r"guid '\.\./x' is not a plain name"),
        ("guid", "", "guid '' is not a plain name"),
        ("guid", ".x", "is not a plain name"),
        ("guid", "a\\b", "is not a plain name"),
        ("guid", "a\u2028b", "is not a plain name"),
        ("guid", "a\0b", "is not a plain name"),
        ("label", 3, "a label is not the code of one of 3 classes"),
        ("label", -1, "a label is not the code of one of 3 classes"),
        ("text", None, "some texts are missing"),
        ("image", "/etc/passwd", "picture '/etc/passwd' may be outside of its folder"),
        ("image", "../x.jpg", "may be outside of its folder"),
        ("image", "a/../../x.jpg", "may be outside of its folder"),
        ("image", "a/..", "may be outside of its folder"),
        ("image", "", "may be outside of its folder"),
        ("image", "a\0b", "may be outside of its folder"),
    ],
)
def test_values_that_no_split_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, match: str
) -> None:
    table = posts().table
    values = table[name].to_pylist()
    values[0] = value
    samples = SampleTable(replaced(table, name, values))
    with pytest.raises(DataError, match=match):
        write(tmp_path, samples)
    monkeypatch.setattr(stored_split, "_check_values", lambda *_: None)  # of who writes anything
    path = write(tmp_path, samples)
    monkeypatch.undo()
    refused(path, match)


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace("post 1 好".encode(), b"post 1 \xff\xff\xff"))
    refused(path, "UTF8")


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "compressed": ({"compression": "zstd"}, "column guid: it is compressed"),
    "dictionary": ({"use_dictionary": True}, "column guid: it has a dictionary or an index"),
    "delta": ({"column_encoding": {"guid": "DELTA_BYTE_ARRAY"}}, "its encoding is not plain"),
    "newer pages": ({"data_page_version": "2.0"}, "column guid: "),
    "an index": ({"write_page_index": True}, "column guid: it has a dictionary or an index"),
    "an Arrow schema": ({"store_schema": True}, "it is not the table of a split"),
}


def odd_file(path: Path, table: pa.Table, metadata: bytes, **options: Any) -> None:
    given = {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,
        "store_schema": False,
    }
    with pq.ParquetWriter(path, table.schema, **given | options) as writer:
        writer.write_table(table, 1 << 16)
        writer.add_key_value_metadata({b"mmsa": metadata})


@pytest.mark.parametrize("kind", ODD)
def test_a_file_that_is_not_plain_is_not_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    metadata = statement(path)
    options, match = ODD[kind]
    odd_file(path, posts().table, metadata, **options)
    monkeypatch.setattr(pq, "ParquetFile", None)
    refused(path, match)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["image"]),
        lambda table: table.append_column("more", pa.array([1] * len(table), pa.int32())),
        lambda table: table.rename_columns([*COLUMNS.names[:-1], "Image"]),
        lambda table: table.set_column(1, "label", table["label"].cast(pa.int64())),
        lambda table: table.set_column(0, "guid", table["guid"]),  # may be null
        lambda table: table.set_column(6, "image", pa.array([["a"]] * len(table))),
    ],
)
def test_other_columns_are_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    metadata = statement(path)
    odd_file(path, change(posts().table), metadata)
    monkeypatch.setattr(pq, "ParquetFile", None)
    refused(path, "its columns are not those of a split's table")


def test_a_dictionary_that_the_footer_hides_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may say of itself what the footer does not: one text for all rows."""
    path = write(tmp_path)
    raw = bytearray(path.read_bytes())
    # The first page of a chunk: type, sizes, {values, encoding, …}; encoding 8 is a dictionary's.
    at = raw.index(b"\x15\x00\x15", 4)
    encoding = raw.index(b"\x15\x00\x15\x06\x15\x06", at)
    raw[encoding + 1] = 16
    path.write_bytes(raw)
    monkeypatch.setattr(pq, "ParquetFile", None)
    refused(path, "column guid: its encoding is not plain")


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    footer = plain_parquet.read_footer(memoryview(path.read_bytes()))
    with pytest.raises(ValueError, match=r"it cannot hold 1099511627776 rows in \d+ bytes"):
        plain_parquet.check_plain(
            memoryview(path.read_bytes()), {**footer, 3: 1 << 40}, COLUMNS, 64
        )


def footer_of(description: bytes) -> bytes:
    """A file that is a footer alone."""
    return b"PAR1" + description + len(description).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it has 0 bytes"),
        (b"PAR1", "it is not a Parquet file"),
        (b"\x89HDF\r\n\x1a\n" * 4, "it is not a Parquet file"),
        (b"PAR1" + (1 << 30).to_bytes(4, "little") + b"PAR1", "its footer cannot have 1073741824"),
        (footer_of(b"\x1c" * 99), "its description is nested too deeply"),
        (footer_of(b"\x19" * 99), "its description holds an unknown type"),
        (footer_of(b"\x19\xf5" + b"\xff" * 4 + b"\x01"), "its description is cut off"),
        (footer_of(b"\x15" + b"\xff" * 12), "a number of more than 64 bits"),
        (footer_of(b"\x15\x02\x05\x02\x02"), "the fields of its description are out of order"),
        (footer_of(b"\x15\x02\x00\x00"), "its footer is not the description of a table"),
    ],
)
def test_what_is_no_parquet_file(tmp_path: Path, content: bytes, match: str) -> None:
    path = split_path(tmp_path, "train")
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path, match)


def damaged(raw: bytes, draw: random.Random) -> bytes:
    data = bytearray(raw)
    kind = draw.randrange(6)
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    at = draw.randrange(footer, len(raw)) if draw.random() < 0.5 else draw.randrange(len(raw))
    if kind == 0:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        data[at] = draw.randrange(256)
    elif kind == 2:
        del data[at : at + draw.randrange(1, 9)]
    elif kind == 3:
        data[at:at] = draw.randbytes(draw.randrange(1, 9))
    elif kind == 4:
        del data[at:]
    else:
        other = draw.randrange(len(raw))
        data[at : at + 16] = raw[other : other + 16]
    return bytes(data)


def fuzz(folder: Path, rounds: int, seed: int) -> tuple[int, int]:
    """How many damaged files were refused, and how many read as what was written."""
    path = write(folder)
    raw = path.read_bytes()
    draw = random.Random(seed)
    messages, equal = [], 0
    for _ in range(rounds):
        data = damaged(raw, draw)
        path.write_bytes(data)
        try:
            found = read_split(path)
        except (DamagedCacheError, StaleCacheError) as error:
            messages.append(error.message)
        else:
            assert found[0] == ABOUT
            assert found[1].with_folder(Path("/posts")) == posts()
            equal += 1
    assert all(str(path) in message for message in messages)
    return len(messages), equal


@pytest.mark.counted
def test_damaged_files_are_refused_or_the_same(tmp_path: Path, tally: Tally) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusals, equal = fuzz(tmp_path, 1000, 0)
    assert refusals > 800
    assert refusals + equal == 1000
    tally("damaged tables of a split", 1000, f"{refusals} refused, {equal} the same")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.faults
def test_many_damaged_files_are_refused_or_the_same(tmp_path: Path, tally: Tally) -> None:
    refusals, equal = fuzz(tmp_path, 20_000, 1)
    assert refusals + equal == 20_000
    tally("damaged tables of a split", 20_000, f"{refusals} refused, {equal} the same")
