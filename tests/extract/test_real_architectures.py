"""BERT-base and SwinV2-base, the report's encoders, at random weights through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.pairs import make_pairs


def test_bert_base_and_swinv2_base_run_the_whole_way(tmp_path: Path) -> None:
    from transformers import BertConfig, BertTokenizerFast

    make_pairs(tmp_path / "posts", 40)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "plain", "day", "sea"]
    (tmp_path / "bert").mkdir()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    BertConfig().save_pretrained(tmp_path / "bert")  # the defaults are those of bert-base-uncased
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

    def mmsa(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "mmsa_cache", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    records = json.loads(mmsa("extract", "--split", "all", "--json"))
    assert [r["rows"] for r in records] == [28, 28, 12, 12]
    assert records[0]["encoder"] == "bert (random weights)"
    assert records[1]["encoder"] == "swinv2_base_window8_256.ms_in1k (random weights)"
    searched = json.loads(mmsa("search", "--study", "one", "--trials", "1", "--json"))
    assert searched["notes"] == [r["encoder"] for r in records[:2]]
    mmsa("train", "--study", "one", "--name", "r", "--folds", "2")
    config = json.loads((tmp_path / "runs/r/config.json").read_text())
    (model,) = config["models"]
    assert model["dims"]["text"] == 768
    assert model["dims"]["image"] == 1024
    assert len(json.loads(mmsa("predict", "--run", "r", "--split", "test", "--json"))) == 12
