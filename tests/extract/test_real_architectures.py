"""BERT-base and SwinV2-base, the report's encoders, at random weights through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.pairs import make_pairs
from tests.support.small_work import call, call_json


@pytest.mark.faults
def test_bert_base_and_swinv2_base_run_the_whole_way(tmp_path: Path) -> None:
    """Of their depth but narrow, or as small kin, they are in every other test."""
    from transformers import BertConfig, BertTokenizerFast

    make_pairs(tmp_path / "posts", 28, test_rows=4)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "plain", "day", "sea"]
    (tmp_path / "bert").mkdir()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    BertConfig().save_pretrained(tmp_path / "bert")  # the defaults are bert-base-uncased's
    (tmp_path / "mmsa.toml").write_text(
        """[data]
root = "posts"
[text]
model = "bert"
weights = "random"
max_tokens = 16
[image]
weights = "random"
[extract]
variants = "none"
"""
    )
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "one.toml").write_text(
        """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
layers = 1
[space]
level = ["tokens"]
fusion = ["attention_concat"]
"""
    )

    records = call_json(tmp_path, "extract", "--split", "all")
    assert [r["rows"] for r in records] == [24, 24, 4, 4]
    assert records[0]["encoder"] == "bert (random weights)"
    assert records[1]["encoder"] == "swinv2_base_window8_256.ms_in1k (random weights)"
    searched = call_json(tmp_path, "search", "--study", "one", "--trials", "1")
    labels, lacking = searched["notes"][:2], searched["notes"][2:]
    assert labels == [r["encoder"] for r in records[:2]]
    assert all("is missing: The rarest class has" in note for note in lacking)
    call(tmp_path, "train", "--study", "one", "--name", "r", "--folds", "2")
    config = json.loads((tmp_path / "runs/r/config.json").read_text())
    (model,) = config["models"]
    assert model["dims"]["text"] == 768
    assert model["dims"]["image"] == 1024
    assert len(call_json(tmp_path, "predict", "--run", "r", "--split", "test")) == 4
