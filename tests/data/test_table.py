"""The rows of a split as columns."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mmsa_cache.data.files import plain_text, text_key
from mmsa_cache.data.layouts.listing import NOT_PLAIN
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.splits import duplicate_groups
from mmsa_cache.data.table import SampleTable

FOLDER = Path("/posts")


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def made(count: int, seed: int, words: int = 40, pictures: int = 40) -> list[Sample]:
    draw = random.Random(seed)
    samples = []
    for number in range(count):
        text = draw.choice(["", "RT @a: ", "http://t.co/1 "]) + draw.choice(
            ["", *(f"word {word}" for word in range(words))]
        )
        path, picture = FOLDER / f"p/{number}.jpg", hashed(str(draw.randrange(pictures)))
        label = draw.choice([None, 0, 1, 2])
        samples.append(
            Sample(str(number), label, text, path, hashed(text), picture, text_key(text))
        )
    return samples


def test_a_table_is_a_sequence_of_its_samples() -> None:
    samples = made(5000, 0)
    table = SampleTable.from_samples(samples, FOLDER)
    assert len(table) == 5000
    assert list(table) == samples
    assert [table[0], table[4321], table[-1]] == [samples[0], samples[4321], samples[-1]]
    assert list(table[10:4500:7]) == samples[10:4500:7]
    assert list(table[4000:][90:100]) == samples[4090:4100]
    assert table.guids == [sample.guid for sample in samples]
    assert table.labels.tolist() == [-1 if s.label is None else s.label for s in samples]
    assert list(table[7:7]) == list(table[9:7]) == list(table[6000:]) == []
    allocated = pa.total_allocated_bytes()
    pieces = [table[first : first + 64] for first in range(0, 5000, 64)]
    assert pa.total_allocated_bytes() == allocated
    assert [sample for piece in pieces for sample in piece] == samples
    with pytest.raises(IndexError):
        table[5000]
    assert list(table.take([3, 3, 1])) == [samples[3], samples[3], samples[1]]
    assert table.drop_guids(["1", "3", "x"]).guids[:3] == ["0", "2", "4"]
    assert table.drop_guids([]) == table != table.with_folder(None)
    assert list(SampleTable.from_samples([], FOLDER)) == []


def test_digests_are_those_of_the_samples_in_slices_too() -> None:
    samples = made(100, 1)
    table = SampleTable.from_samples(samples, FOLDER)[20:80]
    for found, name in ((table.digests("text"), "text"), (table.digests("image"), "image")):
        assert found.shape == (60, 32)
        assert [row.tobytes().hex() for row in found] == [
            getattr(sample, f"{name}_sha256") for sample in samples[20:80]
        ]


def test_pictures_elsewhere_are_refused_or_left_out() -> None:
    samples = made(1, 1)
    assert SampleTable.from_samples(samples)[0].image_path is None
    with pytest.raises(ValueError, match=r"/posts/p/0.jpg is not in /post$"):
        SampleTable.from_samples(samples, Path("/post"))
    assert SampleTable.from_samples(samples, Path("/"))[0] == samples[0]


def groups_by_hand(samples: Sequence[Sample]) -> list[int]:
    """Merges groups until none share a text or a picture."""
    group = list(range(len(samples)))
    changed = True
    while changed:
        changed = False
        for keys in (
            [plain_text(sample.text or "") for sample in samples],
            [sample.image_sha256 for sample in samples],
        ):
            lowest: dict[str, int] = {}
            for key, number in zip(keys, group, strict=True):
                lowest[key] = min(number, lowest.get(key, number))
            for place, key in enumerate(keys):
                if key and lowest[key] < group[place]:
                    group[place], changed = lowest[key], True
    numbers = {number: place for place, number in enumerate(dict.fromkeys(group))}
    return [numbers[number] for number in group]


@pytest.mark.parametrize("seed", range(5))
def test_groups_agree_with_merging_by_hand(seed: int) -> None:
    samples = made(60, seed)
    expected = groups_by_hand(samples)
    assert 1 < len(set(expected)) < 60
    table = SampleTable.from_samples(samples, FOLDER)
    assert table.groups().tolist() == expected
    assert table.groups().dtype == np.int64  # they are places of arrays, too
    assert table.without_texts().groups().tolist() == expected
    assert duplicate_groups(samples).tolist() == expected
    assert SampleTable.from_samples([]).groups().tolist() == []


def test_the_digest_is_of_contents_labels_copies_and_order() -> None:
    samples = made(5000, 2)
    table = SampleTable.from_samples(samples, FOLDER)
    copies = {0: 4, 1: 0, 2: 1}
    whole = b"".join(
        bytes.fromhex(s.text_sha256)
        + bytes.fromhex(s.image_sha256)
        + (-1 if s.label is None else s.label).to_bytes(4, "little", signed=True)
        + (0 if s.label is None else copies[s.label]).to_bytes(4, "little")
        for s in samples
    )
    found = table.digest(copies)
    assert found == hashlib.sha256(whole).hexdigest()
    renamed = [Sample(f"x{s.guid}", *list_of(s)[1:]) for s in samples]
    assert SampleTable.from_samples(renamed).digest(copies) == found
    assert table.digest({0: 4, 2: 1}) == found
    others = [table.digest({0: 4}), table[1:].digest(copies), table[::-1].digest(copies)]
    assert len({found, *others}) == 4


def list_of(sample: Sample) -> list[object]:
    return [getattr(sample, name) for name in Sample.__slots__]


def test_a_text_key_is_of_what_the_post_says() -> None:
    assert text_key("RT @you: So  good http://t.co/1") == hashlib.sha256(b"so good").digest()[:16]
    assert text_key("https://t.co/1 ") is None
    assert text_key("") is None


def test_plain_guids_are_the_same_for_both_libraries() -> None:
    letters = [chr(code) for code in range(0x3000)]
    names = [f"a{letter}b" for letter in letters] + ["", ".a", "a.", "a", "é"]
    python = [bool(re.search(NOT_PLAIN, name)) for name in names]
    assert pc.match_substring_regex(pa.array(names), NOT_PLAIN).to_pylist() == python
    by_hand = [
        name.splitlines() != [name] or name.startswith(".") or bool(set(name) & set("/\\\0"))
        for name in names
    ]
    assert python == by_hand


ROWS = 20_000


def test_a_survey_keeps_few_bytes_a_row(tmp_path: Path) -> None:
    """Rows are objects for a window only: no list of futures, results or samples."""
    command = [sys.executable, "-m", "tests.support.survey_bytes", str(tmp_path), str(ROWS)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["labels"] == [1]
    assert found["arrow"] / ROWS < 300
    assert found["table"] / ROWS < 250
    assert found["peak"] / ROWS < 350  # guids, lines and labels of the label file
