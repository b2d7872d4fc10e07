"""Texts without spaces between words: cut, augmented, and their rows in a store."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from extract.inputs import segment
from extract.inputs.augment import (
    POLICY,
    augment_text,
    augment_words,
    augmentation_policy,
    variant_rng,
)
from extract.plan import Row
from mmsa_cache.compose.extraction.readers import reader_of
from mmsa_cache.compose.session.samples import load_samples
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.row_masks import pack_rows, unpack_rows
from mmsa_cache.store.keys import variant_key
from tests.support.pairs import make_pairs
from tests.support.small_work import call_json, mmsa

CHINESE = "今天天气真好，我很开心！#心情# http://t.co/house后来 @小明 good"
THAI = "สวัสดีครับวันนี้"


@pytest.fixture(params=["characters", "jieba"])
def cutter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "jieba":
        pytest.importorskip("jieba")
    else:
        monkeypatch.setitem(sys.modules, "jieba", None)
        segment._jieba.cache_clear()
    yield request.param
    monkeypatch.undo()
    if request.param == "characters":
        segment._jieba.cache_clear()


def test_segments_are_words_and_join_to_the_text(cutter: str) -> None:
    for text in (CHINESE, THAI, "a b\t日本語のテキスト e-mail it's", "", "🙂🙂"):
        assert "".join(segment.split_segments(text)) == text
    found = segment.split_segments(CHINESE)
    assert {"http://t.co/house", "@小明", "good"} <= set(found) or "小" in found
    assert ("开心" in found) == (cutter == "jieba")
    assert segment.split_segments("วันนี้") == ["วั", "น", "นี้"]  # marks stay on their letters
    assert segment.segmenter_version().split()[0] == cutter


def test_only_texts_without_spaces_change_their_policy(cutter: str) -> None:
    """English texts keep their copies byte for byte: see test_augment."""
    english = "What a happy day 日本 at the big house"
    assert augmentation_policy(english) == POLICY
    assert augmentation_policy("") == POLICY
    assert augmentation_policy("日 happy") == POLICY
    assert augmentation_policy("我好 http://t.co/abcdefgh @somebody") != POLICY
    assert augmentation_policy("🙂 !!") == POLICY
    assert augmentation_policy("Привет мир") == POLICY
    assert str(augmentation_policy(CHINESE)).startswith(f"unspaced-v1 {cutter}")
    assert str(augmentation_policy("我好")).startswith("unspaced-v1")
    assert augmentation_policy("好！") is None
    assert augment_text("好！", variant_rng(1, "0", 1, "text")) == ("好！", "")


@pytest.mark.parametrize("text", [CHINESE, THAI, "我好", "哈 哈"])
def test_every_copy_differs_from_its_text(text: str, cutter: str) -> None:
    names = set()
    for seed in range(60):
        new, name = augment_text(text, variant_rng(seed, "0", 1, "text"))
        assert new != text
        names.add(name)
        assert new.count("http://t.co/house") == text.count("http://t.co/house")
        if name == "segment_swap":
            assert sorted(new) == sorted(text)
    assert {"segment_deletion"} <= names <= {"segment_deletion", "segment_swap"}


def test_copies_that_a_store_has_are_made_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_augment; jieba's words are those of its version, which the policy names."""
    monkeypatch.setattr(segment, "_jieba", lambda: None)
    texts = [CHINESE, THAI, "我好", "哈 哈 我", "我 http://t.co/x 好", "よろしく。お願い"]
    drawn = [
        augment_text(text, variant_rng(47, f"{key:064x}", 1, "text"))
        for text in texts
        for key in range(30)
    ]
    found = hashlib.sha256(repr(drawn).encode()).hexdigest()
    assert {augmentation_policy(CHINESE): found[:16]} == {
        "unspaced-v1 characters": "37c3ef306607906a"
    }


def test_bits_of_rows() -> None:
    rows = np.random.default_rng(0).random(37) < 0.4
    np.testing.assert_array_equal(unpack_rows(pack_rows(rows), 37), rows)
    for wrong in (pack_rows(rows)[:-4], "not bits", pack_rows(np.ones(64, bool))):
        with pytest.raises(ValueError, match="it holds"):
            unpack_rows(wrong, 37)


def test_a_store_of_some_chinese_posts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of English texts are those of before; texts of one word have no row of a copy."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    segment._jieba.cache_clear()
    flags = ("--variants", "2", "--image-model", "mobilenetv2_100", "--image-weights", "random")
    make_pairs(tmp_path / "posts", 40)
    (tmp_path / "mmsa.toml").write_text(
        '[data]\nroot = "posts"\n[text]\nmodel = "vader"\n[image]\nsize = 32\n'
    )
    before = call_json(tmp_path, "extract", *flags)
    changed = {"0": "今天天气真好，我很开心", "1": "好", "2": "我很开心 happy"}
    labelled = [
        line.split(",")[0] for line in (tmp_path / "posts/train.txt").read_text().splitlines()[1:]
    ]
    for guid, text in zip(labelled, changed.values(), strict=False):
        (tmp_path / "posts/pairs" / f"{guid}.txt").write_text(text)
    done = mmsa(tmp_path, "extract", *flags, "--json")
    said = done.stderr
    assert "2 texts without spaces between words are copied by unspaced-v1 characters" in said
    assert "1 texts of one word have no copies" in said
    (old,), (new,) = (
        [record for record in records if "vader" in record["encoder"]]
        for records in (before, json.loads(done.stdout))
    )
    assert new["rows_computed"] == 3 * 3 - 2
    assert new["rows"] == old["rows"] - 2
    again = call_json(tmp_path, "extract", *flags)
    assert {record["rows_computed"] for record in again} == {0}
    listed = call_json(tmp_path, "cache", "ls")
    assert {entry["complete"]["train"] for entry in listed if "vader" in str(entry)} == {1.0}
    segment._jieba.cache_clear()


def test_a_store_of_before_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of Chinese texts that it has by the policy of all texts stay; a new encoder's too."""
    make_pairs(tmp_path / "posts", 40)
    guid = (tmp_path / "posts/train.txt").read_text().splitlines()[1].split(",")[0]
    (tmp_path / "posts/pairs" / f"{guid}.txt").write_text(CHINESE)
    (tmp_path / "mmsa.toml").write_text(
        '[data]\nroot = "posts"\n[text]\nmodel = "vader"\n[image]\nsize = 32\n'
    )
    flags = ("--variants", "2", "--image-model", "mobilenetv2_100", "--image-weights", "random")
    with monkeypatch.context() as before:
        before.setattr("mmsa_cache.compose.extraction.reading.UNSPACED", "\0")
        call_json(tmp_path, "extract", *flags)
    again = call_json(tmp_path, "extract", *flags)
    assert {record["rows_computed"] for record in again} == {0}
    samples = load_samples(load_settings({"data.root": tmp_path / "posts"}, environ={}), "train")
    (place,) = [row for row, sample in enumerate(samples) if sample.guid == guid]
    sample = samples[place]
    read = reader_of(cast(Any, None), 47)
    for policy, change in ((POLICY, augment_words), ("unspaced-v1 characters", augment_text)):
        row = Row(sample, 1, variant_key(sample.text_sha256, f"{policy}:47", 1))
        rng = variant_rng(47, sample.text_sha256, 1, "text")
        assert read(row) == change(CHINESE, rng)
