"""Damaged and made-up files of every kind: mmsa's own errors or none, in bounded memory."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from fuse.search.study_file import read_study
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.layouts.rows import read_labels
from mmsa_cache.files.hashing import digest
from mmsa_cache.store.encoder import ENCODER as RECORD
from mmsa_cache.store.index import INDEX, IndexChange
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.shard_bytes import encode
from mmsa_cache.store.shard_file import map_shard
from tests.support import fuzzing
from tests.support.fuzzing import Random, altered, mutated, series
from tests.support.reading import read_split
from tests.support.shards import ENCODER, SHARDS, write
from tests.support.tally import Tally

EXAMPLES = pytest.mark.parametrize("examples", [50, pytest.param(5000, marks=pytest.mark.faults)])
BOUND = 48 << 20
"""Bytes that reading small hostile files may take."""
TOKENS = (
    *fuzzing.TOKENS,
    *(b"[" * 5000, b'{"a":' * 5000, b"a." * 3000, b"9" * 5000, b"1979-05-27", b"~nobody/x"),
)


def changed(chosen: Random, *sources: bytes) -> bytes:
    """A mutated source, or bytes of any kind."""
    if chosen.random() < 0.1:
        return chosen.randbytes(chosen.randrange(200))
    return mutated(chosen, sources, TOKENS)


LABEL_FILE = b"guid,tag\r\n1,positive\n2,neutral\n\xc3\xa9,negative\n3,null\n"


@EXAMPLES
def test_label_files(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "labels.txt"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        for row in read_labels(path):
            assert row.label is None or 0 <= row.label < len(LABELS)
            assert not set(row.guid) & set("/\\\0")

    held = series(examples, lambda chosen: changed(chosen, LABEL_FILE), work, growth=BOUND)
    tally("fuzzed label files", examples, held)


TABLES = {
    "train.csv": b'text,image,label,guid\n"a ""b""",1.jpg,positive,x\nc,1.jpg,neutral,y\n',
    "train.tsv": b"text\timage\tlabel\na\t1.jpg\tpositive\nb\t2.jpg\tneutral\n",
    "train.jsonl": b'{"text": "a", "image": "1.jpg", "label": "positive", "guid": 3}\n'
    b'{"text": "b \\u00e9", "image": "2.jpg", "tag": "neutral"}\n',
    "labelResultAll.txt": b"ID\ttext,image\n1\tpositive,neutral\n2\tnegative,negative\n",
}


@EXAMPLES
@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str, examples: int, tally: Tally) -> None:
    for guid in ("1", "2"):
        (tmp_path / f"{guid}.txt").write_text("text")
        (tmp_path / f"{guid}.jpg").write_bytes(b"\xff\xd8\xff" + b"x" * 20)
    path = tmp_path / name

    def work(content: bytes) -> None:
        path.write_bytes(content)
        for sample in read_split(tmp_path, "train"):
            assert sample.image_path.resolve().is_relative_to(tmp_path)

    held = series(examples, lambda chosen: changed(chosen, TABLES[name]), work, growth=BOUND)
    tally(f"fuzzed {name}", examples, held)


CONFIG = b"""seed = 3
device = "cpu"
[data]
root = "posts"
encoding = "gb18030"
classes = ["a", "b"]
max_chars = 128
[text]
model = "all-MiniLM-L6-v2"
layer = "average:2"
pool_layers = [1, 2]
[image]
kwargs = { img_size = 64, depths = [1, 1] }
mean = [0.5, 0.5, 0.5]
[cache]
dir = "~/cache"
[extract]
tokens = "pool:2x2"
variants = 3
"""


@EXAMPLES
def test_settings(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "mmsa.toml"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        load_settings(folder=tmp_path, environ={})

    held = series(examples, lambda chosen: changed(chosen, CONFIG), work, growth=BOUND)
    tally("fuzzed mmsa.toml", examples, held)


STUDY = b"""[protocol]
outer = "grouped"
folds = 3
metric = "macro_f1"
[sampler]
kind = "tpe"
startup = 4
[pruner]
kind = "percentile"
keep = 0.5
[fixed]
epochs = 4
head = "16-8"
[space]
fusion = ["concat", "encoder"]
layers = { values = [1, 2], when = { fusion = ["encoder"], level = "tokens" } }
learning_rate = { low = 1e-4, high = 1e-1, log = true }
batch_size = { low = 16, high = 64, step = 16 }
"""


@EXAMPLES
def test_study_files(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "study.toml"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        read_study(path)

    held = series(examples, lambda chosen: changed(chosen, STUDY), work, growth=BOUND)
    tally("fuzzed study files", examples, held)


@EXAMPLES
def test_indexes(tmp_path: Path, examples: int, tally: Tally) -> None:
    """Also lines whose checksums fit, as whoever makes them up can see to."""
    folder = write(tmp_path)
    path = folder / INDEX
    source = path.read_bytes()
    lines = [json.loads(line)["change"] for line in source.splitlines()]
    names = [line["add"]["sha256"] for line in lines]
    known = (*names, *([name[:16]] for name in names), 4, 2, 1 << 40)

    def make(chosen: Random) -> bytes:
        if chosen.random() < 0.5:
            return changed(chosen, source, IndexChange().line())
        raw = altered(chosen, lines)
        raw = raw if isinstance(raw, list) else [raw]
        for line in raw:
            added = line.get("add") if isinstance(line, dict) else None
            if isinstance(added, dict) and added and chosen.random() < 0.2:
                added[chosen.choice([*added])] = chosen.choice(known)
        texts = [json.dumps(line, separators=(",", ":")) for line in raw]
        sums = [zlib.crc32(text.encode()) for text in texts]
        return "".join(
            f'{{"change": {text}, "crc32": {number}}}\n'
            for text, number in zip(texts, sums, strict=True)
        ).encode()

    def work(content: bytes) -> None:
        path.write_bytes(content)
        open_features(folder)

    tally("fuzzed indexes", examples, series(examples, make, work, growth=BOUND))


@EXAMPLES
def test_records(tmp_path: Path, examples: int, tally: Tally) -> None:
    """Also records whose digest fits."""
    folder = write(tmp_path)
    path = folder / RECORD
    source = path.read_bytes()
    fields = json.loads(source)
    del fields["sha256"]

    def make(chosen: Random) -> bytes:
        if chosen.random() < 0.5:
            return changed(chosen, source)
        raw = altered(chosen, fields)
        if isinstance(raw, dict):
            raw["sha256"] = digest(raw)
        return json.dumps(raw).encode()

    def work(content: bytes) -> None:
        path.write_bytes(content)
        open_features(folder)

    tally("fuzzed encoders' records", examples, series(examples, make, work, growth=BOUND))


@EXAMPLES
def test_shards(tmp_path: Path, examples: int, tally: Tally) -> None:
    """HDF5 is C: with 1 GiB of address space to spare."""
    path = tmp_path / "shard.h5"
    code = ENCODER.fingerprint
    source = b"".join(encode([SHARDS[0]], code))

    def make(chosen: Random) -> bytes:
        data = bytearray(source)
        for _ in range(chosen.randrange(1, 9)):
            at, width = chosen.randrange(len(data) - 8), chosen.choice((1, 2, 4, 8))
            value = chosen.choice((b"\0" * 8, b"\xff" * 8, b"\x7f" * 8, chosen.randbytes(8)))
            data[at : at + width] = value[: chosen.choice((width, 1, 2, 4, 8))]
        return bytes(data)

    def work(content: bytes) -> None:
        path.write_bytes(content)
        shard = map_shard(path, 4, len(content), code)
        float(shard.tokens.astype("f4").sum() + shard.pooled.astype("f4").sum())

    held = series(examples, make, work, growth=BOUND, room=1 << 30)
    tally("fuzzed shards", examples, f"{held}, 1 GiB of address space")
