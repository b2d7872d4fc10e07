"""Working folders for the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.data_folders import GOOD, ROWS, make_data, mmsa
from tests.support.pairs import make_pairs
from tests.support.small_work import call_json
from tests.support.tiny import tiny_toml


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("work")
    make_pairs(folder / "posts", 132)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "swinv2_tiny_window8_256",
            """[cache]
shard_rows = 32
""",
        )
    )
    (folder / "studies").mkdir()
    (folder / "studies" / "quick.toml").write_text(
        """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 4
batch_size = 32
learning_rate = 0.003
layers = 1
[space]
fusion = ["concat", "attention_combine"]
level = ["pooled", "tokens"]
text_dim = [16, 32]
loss = ["acb", "ce"]
alpha = [0.25, 0.75]
"""
    )
    return folder


@pytest.fixture(scope="module")
def extracted(work: Path) -> list[dict[str, object]]:
    records: list[dict[str, object]] = call_json(work, "extract", "--split", "all")
    return records


@pytest.fixture(scope="module")
def tiny_work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "mmsa.toml").write_text(
        f"""[text]
model = "{text_model}"
weights = "random"
max_tokens = 16
[image]
model = "resnet10t"
weights = "random"
size = 32
kwargs = {{ channels = [8, 8, 8, 8] }}
[extract]
variants = "none"
batch_size = 1
max_bad = "15%"
"""
    )
    make_data(folder / "all", ROWS)
    make_data(folder / "without", GOOD)
    mmsa(folder, "extract", "--data", "without", "--cache", "reference")
    return folder
