"""Damaged and made-up files of every kind: mmsa's own errors or none, in bounded memory."""

from __future__ import annotations

import json
import os
import resource
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuse.search.study_file import read_study
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.layouts.report import read_labels
from mmsa_cache.errors import MmsaError
from mmsa_cache.hashing import digest
from mmsa_cache.store.encoder import ENCODER as RECORD
from mmsa_cache.store.index import INDEX, Change
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.shard_bytes import encode
from mmsa_cache.store.shard_file import map_shard
from tests.support.faulty import forked
from tests.support.reading import read_split
from tests.support.shards import ENCODER, SHARDS, write
from tests.support.tally import Tally

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
SHORT, LONG = 50, 1000
BOUND = 48 << 20
"""Bytes that reading one small hostile file may take."""
EXAMPLES = pytest.mark.parametrize(
    "examples", [SHORT, pytest.param(LONG, marks=pytest.mark.faults)]
)


def bounded(work: Callable[[], object]) -> None:
    """Runs work that may raise mmsa's errors alone and keep to the bound."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        work()
    except MmsaError as error:
        assert len(str(error)) < 100_000  # noqa: PT017
    assert tracemalloc.get_traced_memory()[1] - before < BOUND


def fuzz(examples: int, strategy: Any, work: Callable[[bytes], object]) -> None:
    """Tries ``work`` on that many contents."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attempt(content: bytes) -> None:
        bounded(lambda: work(content))

    tracemalloc.start()
    try:
        attempt()
    finally:
        tracemalloc.stop()


def mutated(*sources: bytes) -> Any:
    """Sources with pieces replaced, removed, doubled or put in, and bytes of any kind."""

    @st.composite
    def change(draw: Any) -> bytes:
        data = bytearray(draw(st.sampled_from(sources)))
        for _ in range(draw(st.integers(1, 6))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            until = min(len(data), at + draw(st.integers(0, 40)))
            what = draw(st.integers(0, 3))
            if what == 0:
                data[at:until] = draw(st.binary(max_size=40))
            elif what == 1:
                del data[at:until]
            elif what == 2:
                data[at:at] = data[at:until] * draw(st.integers(1, 50))
            else:
                data[at:at] = draw(st.sampled_from(TOKENS))
        return bytes(data)

    return change() | st.binary(max_size=200)


TOKENS = (
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\n", b"\r", b"\xe2\x80\xa8", b'"', b",", b"=", b"["),
    *(
        b"[" * 5000,
        b'{"a":' * 5000,
        b"a." * 3000,
        b"9" * 5000,
        b"a" * 5000,
        b"'" * 3,
        b"{",
        b"\\ud800",
    ),
    *(
        b"1e999",
        b"nan",
        b"-inf",
        b"null",
        b"true",
        b"1979-05-27",
        b"~nobody/x",
        b"../..",
        b"\\ud800",
    ),
)


LABEL_FILE = b"guid,tag\r\n1,positive\n2,neutral\n\xc3\xa9,negative\n3,null\n"


@EXAMPLES
def test_label_files(tmp_path: Path, examples: int, tally: Tally) -> None:
    path = tmp_path / "labels.txt"

    def work(content: bytes) -> None:
        path.write_bytes(content)
        for row in read_labels(path):
            assert row.label is None or 0 <= row.label < len(LABELS)
            assert not set(row.guid) & set("/\\\0")

    fuzz(examples, mutated(LABEL_FILE), work)
    tally("fuzzed label files", examples, "own errors only, bounded memory")


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

    fuzz(examples, mutated(TABLES[name]), work)
    tally(f"fuzzed {name}", examples, "own errors only, bounded memory")


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

    fuzz(examples, mutated(CONFIG), work)
    tally("fuzzed mmsa.toml", examples, "own errors only, bounded memory")


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

    fuzz(examples, mutated(STUDY), work)
    tally("fuzzed study files", examples, "own errors only, bounded memory")


_TEXT = st.text("ab/.\0\ud800é", max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner),
    max_leaves=8,
)


@EXAMPLES
def test_indexes(tmp_path: Path, examples: int, tally: Tally) -> None:
    """Also lines whose checksums fit, as whoever makes them up can see to."""
    folder = write(tmp_path)
    path = folder / INDEX
    source = path.read_bytes()
    lines = [json.loads(line)["change"] for line in source.splitlines()]

    @st.composite
    def changed(draw: Any) -> bytes:
        raw = json.loads(json.dumps(lines))
        for _ in range(draw(st.integers(1, 3))):
            line = draw(st.sampled_from(raw))
            place: Any = draw(st.sampled_from([line, line["add"]]))
            if not (isinstance(place, dict) and place and isinstance(line["add"], dict)):
                break  # nothing is left to change in it
            place[draw(st.sampled_from(sorted(place)))] = draw(json_values | known)
        texts = [json.dumps(line, separators=(",", ":")) for line in raw]
        sums = [zlib.crc32(text.encode()) for text in texts]
        return "".join(
            f'{{"change": {text}, "crc32": {number}}}\n'
            for text, number in zip(texts, sums, strict=True)
        ).encode()

    names = [line["add"]["sha256"] for line in lines]
    known = st.sampled_from([*names, *([name[:16]] for name in names), 4, 2, 1 << 40])

    def work(content: bytes) -> None:
        path.write_bytes(content)
        open_features(folder)

    fuzz(examples, mutated(source, Change().line()) | changed(), work)
    tally("fuzzed indexes", examples, "own errors only, bounded memory")


@EXAMPLES
def test_records(tmp_path: Path, examples: int, tally: Tally) -> None:
    folder = write(tmp_path)
    path = folder / RECORD
    source = path.read_bytes()

    @st.composite
    def changed(draw: Any) -> bytes:
        raw = json.loads(source)
        del raw["sha256"]
        for _ in range(draw(st.integers(1, 3))):
            place: Any = draw(st.sampled_from([raw, raw["fields"]]))
            if not isinstance(place, dict) or not place or "fields" not in raw:
                break  # nothing is left to change in it
            place[draw(st.sampled_from(sorted(place)))] = draw(json_values)
        return json.dumps(raw | {"sha256": digest(raw)}).encode()

    def work(content: bytes) -> None:
        path.write_bytes(content)
        open_features(folder)

    fuzz(examples, mutated(source) | changed(), work)
    tally("fuzzed encoders' records", examples, "own errors only, bounded memory")


@EXAMPLES
def test_shards(tmp_path: Path, examples: int, tally: Tally) -> None:
    """In a process of its own with 1 GiB to spare: HDF5 is C, and a crash must not pass unseen."""
    path = tmp_path / "shard.h5"
    code = ENCODER.fingerprint
    source = bytes(encode([SHARDS[0]], code))

    @st.composite
    def changed(draw: Any) -> bytes:
        data = bytearray(source)
        for _ in range(draw(st.integers(1, 8))):
            at = draw(st.integers(0, len(data) - 9))
            data[at : at + draw(st.sampled_from([1, 2, 4, 8]))] = draw(
                st.sampled_from([b"\0", b"\xff", b"\x7f"]).map(lambda b: b * 8)
                | st.binary(min_size=8, max_size=8)
            )[: draw(st.sampled_from([1, 2, 4, 8]))]
        return bytes(data)

    def work(content: bytes) -> None:
        path.write_bytes(content)
        shard = map_shard(path, 4, len(content), code)
        float(shard.tokens.astype("f4").sum() + shard.pooled.astype("f4").sum())

    def all_of_them() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
        h5py._errors.silence_errors()
        fuzz(examples, changed(), work)

    assert forked(all_of_them) == 0
    tally("fuzzed shards", examples, "own errors only, no crash, 1 GiB of address space")
