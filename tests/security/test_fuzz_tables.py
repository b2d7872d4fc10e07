"""Damaged and made-up containers: Parquet, Arrow, tar, and how columns are named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.pairs import read_sample_picture
from mmsa_cache.data.scan import scan_split
from mmsa_cache.errors import MmsaError
from tests.support.faulty import forked
from tests.support.fuzzing import EXAMPLES, ODD, Random, altered, mutated, series
from tests.support.inputs.build import jpeg
from tests.support.inputs.containers import saved, table
from tests.support.tally import Tally

TEXTS, LABELS = ["good day", "a sea", "bad rain"], ["positive", "neutral", "negative"]
BYTES = [jpeg(n) for n in range(3)]
STRUCTS = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(BYTES)]
SECRET = b"\xff\xd8\xff of somebody"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder; beside it lies somebody's picture."""
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def read_all(root: Path, **data: Any) -> None:
    """Reads the training rows and every picture that is taken; a row that is bad is an answer."""
    settings = load_settings({"data.root": root, **data}, folder=root, environ={}).data
    found = scan_split(settings, "train")
    for sample in found.samples:
        if sample.image_path is not None:
            assert read_sample_picture(sample) != SECRET
    for row in found.bad:
        assert len(" ".join(row.messages)) < 100_000
    found.raise_bad(found.bad)


def parquet_bytes(content: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, row_group_size=2, **options)
    return sink.getvalue().to_pybytes()


PARQUET = [
    parquet_bytes(table(text=TEXTS, image=STRUCTS, label=LABELS)),
    parquet_bytes(table(text=TEXTS, image=BYTES, label=LABELS), compression="zstd"),
    parquet_bytes(table(text=TEXTS, image=BYTES, label=[0, 1, 2]), use_dictionary=False),
    parquet_bytes(table(guid=TEXTS, image=["0.jpg", "1.jpg", "2.jpg"], text=LABELS), version="1.0"),
    parquet_bytes(table(text=TEXTS, image=BYTES, label=LABELS), data_page_version="2.0"),
]


@EXAMPLES
def test_parquet(root: Path, examples: int, tally: Tally) -> None:
    path = root / "train.parquet"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        read_all(root)

    held = series(examples, lambda chosen: mutated(chosen, PARQUET), work)
    tally("fuzzed Parquet tables", examples, held)


@pytest.mark.parametrize("column", ["text", "label", "bytes"])
def test_a_column_that_a_footer_calls_required_does_not_end_the_process(
    root: Path, column: str
) -> None:
    """Nothing may ask pyarrow for a chunk of it: its library raises where nothing catches."""
    optional = b"\x25\x02\x18" + bytes([len(column)]) + column.encode()
    assert PARQUET[0].count(optional) == 1
    required = PARQUET[0].replace(optional, optional.replace(b"\x25\x02", b"\x25\x00"))
    (root / "train.parquet").write_bytes(required)

    def read() -> None:
        with pytest.raises(MmsaError, match=r"train\.parquet"):
            read_all(root)

    assert forked(read) == 0


CELLS: tuple[Any, ...] = (
    *("text", "../secret.jpg", "/etc/passwd", "0.jpg", "a\0b", "\x1b[31m", "x" * 5000, "", "é"),
    *("train.parquet!/image/0", "train.parquet!/../secret.jpg", "1", "positive", "nan"),
)
KINDS: tuple[tuple[pa.DataType, tuple[Any, ...]], ...] = (
    (pa.string(), CELLS),
    (pa.large_string(), CELLS),
    (pa.binary(), (*BYTES, b"", b"\xff\xd8\xff", b"\xff" * 9)),
    (pa.int64(), (0, 1, 2, -1, 1 << 62)),
    (pa.uint64(), (0, (1 << 64) - 1)),
    (pa.float64(), (0.0, 1.0, float("nan"), 1e308, -0.5)),
    (pa.float16(), (0.0, 1.0)),
    (pa.bool_(), (True, False)),
    (pa.list_(pa.string()), (["a"], [], ["a", "b"])),
    (pa.list_(pa.binary()), ([BYTES[0]], [])),
    (
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        (*STRUCTS, {"path": "../secret.jpg"}),
    ),
    (pa.struct([("bytes", pa.string()), ("path", pa.int8())]), ({"bytes": "x", "path": 1},)),
    (pa.struct([("path", pa.string())]), ({"path": "/etc/passwd"}, {"path": "0.jpg"})),
    (pa.dictionary(pa.int32(), pa.string()), CELLS),
    (pa.decimal128(38, 10), (1, 2)),
    (pa.timestamp("ns"), (0, 1 << 62)),
    (pa.date32(), (0, 2)),
    (pa.time64("ns"), (0,)),
    (pa.duration("s"), (5,)),
    (pa.map_(pa.string(), pa.string()), ([("a", "b")],)),
    (pa.null(), (None,)),
    (pa.binary(3), (b"\xff\xd8\xff", b"abc")),
)
NAMES = (
    "text",
    "image",
    "label",
    "guid",
    "id",
    "tweet",
    "sentiment",
    "Text",
    "",
    "a\0b",
    "x.bytes",
    "text",
)
INFO = {
    "info": {
        "features": {
            "text": {"dtype": "string", "_type": "Value"},
            "image": {"_type": "Image"},
            "label": {"names": LABELS, "_type": "ClassLabel"},
        }
    }
}


def odd_table(chosen: Random) -> pa.Table:
    """Columns of any type, some with the names that are looked for."""
    rows = chosen.choice((0, 1, 3, 3, 3, 40))
    names = chosen.sample(NAMES, chosen.randrange(1, 6))
    if chosen.random() < 0.7:
        names = ["text", "image", "label", *names[3:]]
    arrays = []
    for name in names:
        usual = {"text": 0, "image": 2, "label": 3}.get(name, 0)
        kind, cells = KINDS[usual] if chosen.random() < 0.75 else chosen.choice(KINDS)
        values = [None if chosen.random() < 0.04 else chosen.choice(cells) for _ in range(rows)]
        arrays.append(pa.array(values, kind))
    found = pa.Table.from_arrays(arrays, names)
    if chosen.random() < 0.5:
        about = json.dumps(altered(chosen, INFO)).encode()
        about = mutated(chosen, [about]) if chosen.random() < 0.3 else about
        found = found.replace_schema_metadata({b"huggingface": about})
    return found


@EXAMPLES
def test_parquet_of_odd_columns(root: Path, examples: int, tally: Tally) -> None:
    (root / "0.jpg").write_bytes(BYTES[0])

    def make(chosen: Random) -> bytes:
        return parquet_bytes(
            odd_table(chosen), compression=chosen.choice(("none", "snappy", "gzip"))
        )

    def work(content: bytes) -> None:
        (root / "train.parquet").write_bytes(content)
        read_all(root)

    tally("Parquet tables of odd columns", examples, series(examples, make, work))


def arrow_bytes(content: pa.Table, *, whole: bool) -> bytes:
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if whole else pa.ipc.new_stream
    with new(sink, content.schema) as writer:
        writer.write_table(content, 2)
    return sink.getvalue().to_pybytes()


ARROW = [
    arrow_bytes(table(text=TEXTS, image=STRUCTS, label=LABELS), whole=False),
    arrow_bytes(table(text=TEXTS, image=BYTES, label=[0, 1, 2]), whole=True),
    arrow_bytes(
        pa.table({"text": pa.array(TEXTS).dictionary_encode(), "image": BYTES, "label": LABELS}),
        whole=False,
    ),
]


@EXAMPLES
@pytest.mark.parametrize("odd", [False, True], ids=["bytes", "columns"])
def test_arrow(root: Path, odd: bool, examples: int, tally: Tally) -> None:
    saved({"train": table(text=TEXTS, image=STRUCTS, label=LABELS)})(root)
    path = root / "train/data-00000-of-00001.arrow"

    def make(chosen: Random) -> bytes:
        if odd:
            return arrow_bytes(odd_table(chosen), whole=chosen.random() < 0.5)
        return mutated(chosen, ARROW)

    def work(content: bytes) -> None:
        path.write_bytes(content)
        read_all(root)

    tally(
        f"fuzzed Arrow files, {'columns' if odd else 'bytes'}",
        examples,
        series(examples, make, work),
    )


@EXAMPLES
def test_records_of_saved_data_sets(root: Path, examples: int, tally: Tally) -> None:
    saved({"train": table(text=TEXTS, image=STRUCTS, label=LABELS)})(root)
    names = ("dataset_dict.json", "train/state.json", "train/dataset_info.json")
    whole = {name: json.loads((root / name).read_text()) for name in names}

    def make(chosen: Random) -> tuple[str, bytes]:
        name = chosen.choice(names)
        data = json.dumps(altered(chosen, whole[name])).encode()
        return name, mutated(chosen, [data]) if chosen.random() < 0.2 else data

    def work(content: tuple[str, bytes]) -> None:
        for name in names:
            (root / name).write_text(json.dumps(whole[name]))
        (root / content[0]).write_bytes(content[1])
        read_all(root)

    tally("fuzzed records of saved data sets", examples, series(examples, make, work))


MEMBERS = ("0.jpg", "0.txt", "0.cls", "1.jpg", "1.txt", "1.cls", "x.jpg", "x.txt", "x.json")
PLACES = (
    "../secret.jpg",
    "/etc/passwd",
    "a/../../secret.jpg",
    "./0.jpg",
    "a/b/0.jpg",
    "",
    ".",
    "..",
)
PLACES += (
    "0.jpg/",
    "a\\..\\x.jpg",
    "\udcff.jpg",
    "x" * 300 + ".jpg",
    "0\n.txt",
    "train.tar!/0.jpg",
)
TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE)
TYPES += (tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"\x00", b"V")


def shard(chosen: Random) -> bytes:
    """A tar of links, devices, folders, and members whose names lead out of it."""
    sink = io.BytesIO()
    kind = chosen.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=sink, mode="w", format=kind, errors="surrogateescape") as tar:
        names = [name for name in MEMBERS if chosen.random() < 0.97]
        for _ in range(chosen.choice((0, 1, 1, 3))):
            odd = chosen.choice(PLACES if chosen.random() < 0.7 else MEMBERS)
            names.insert(chosen.randrange(len(names) + 1), odd)
        for name in names:
            info = tarfile.TarInfo(name)
            if chosen.random() < 0.05:
                info.type = chosen.choice(TYPES)
                info.linkname = chosen.choice(("../secret.jpg", "/etc/passwd", "0.jpg", "x" * 200))
                info.devmajor = info.devminor = chosen.randrange(4)
            if kind == tarfile.PAX_FORMAT and chosen.random() < 0.08:
                key = chosen.choice(
                    (
                        "path",
                        "size",
                        "linkpath",
                        "GNU.sparse.map",
                        "GNU.sparse.size",
                        "GNU.sparse.major",
                        "GNU.sparse.name",
                        "hdrcharset",
                        "mtime",
                    )
                )
                info.pax_headers = {
                    key: chosen.choice(
                        (
                            "1",
                            "-5",
                            "99999999999999",
                            "../secret.jpg",
                            "0,9,9",
                            "x",
                            "nan",
                            "BINARY",
                        )
                    )
                }
            ending = info.name.rpartition(".")[2]
            data = {
                "jpg": chosen.choice(BYTES),
                "cls": b"positive",
                "json": json.dumps(altered(chosen, {"label": "neutral", "text": "a"})).encode(),
            }.get(ending, b"a text")
            info.size = len(data) if chosen.random() < 0.97 else chosen.choice((0, 7, 600))
            try:
                tar.addfile(info, io.BytesIO(data.ljust(info.size)))
            except (ValueError, UnicodeError):  # a name that this format cannot hold
                continue
    data = sink.getvalue()
    return mutated(chosen, [data]) if chosen.random() < 0.3 else data


@EXAMPLES
def test_tar_shards(root: Path, examples: int, tally: Tally) -> None:
    def work(content: bytes) -> None:
        (root / "train.tar").write_bytes(content)
        read_all(root)
        assert sorted(path.name for path in root.iterdir()) == ["train.tar"]

    tally("fuzzed tar shards", examples, series(examples, shard, work))


ROLES = ("text", "image", "label", "guid", "Text", "x", "", "text.a")
COLUMNS = (
    "text",
    "image",
    "label",
    "tweet",
    "",
    "x" * 2000,
    "a=b",
    "a,b",
    "é",
    "\0",
    "../x",
    "\x1b[2J",
)
WAYS: tuple[Callable[[Random], Any], ...] = (
    lambda chosen: [
        f"{chosen.choice(ROLES)}={chosen.choice(COLUMNS)}" for _ in range(chosen.randrange(5))
    ],
    lambda chosen: ",".join(f"{chosen.choice(ROLES)}={chosen.choice(COLUMNS)}" for _ in range(3)),
    lambda chosen: {chosen.choice(ROLES): chosen.choice((*COLUMNS, *ODD)) for _ in range(3)},
    lambda chosen: chosen.choice(ODD),
    lambda chosen: [chosen.choice(ODD), "text=tweet"],
)


@EXAMPLES
def test_column_maps(root: Path, examples: int, tally: Tally) -> None:
    content = 'text,image,label,tweet,"a=b","a,b",é\n'
    content += "good,0.jpg,positive,x,y,z,w\nb,0.jpg,neutral,,1,2,3\n"
    (root / "train.csv").write_text(content)
    (root / "0.jpg").write_bytes(BYTES[0])

    def work(columns: Any) -> None:
        read_all(root, **{"data.columns": columns})

    tally("fuzzed maps of columns", examples, series(examples, lambda c: c.choice(WAYS)(c), work))
