"""Every verb, one after the other, in a folder of generated pairs."""

from __future__ import annotations

from pathlib import Path

from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

STUDY = """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
batch_size = 32
text_dim = 16
image_dim = 16
head = "12"
[space]
fusion = ["concat", "gated"]
alpha = [0.25, 0.75]
"""
FEW = ("--folds", "2", "--outer", "grouped", "--set", "epochs=2", "--set", "text_dim=16")
MAKING: list[tuple[str, ...]] = [
    ("check", "--html", "check.html", "--force"),
    ("extract", "--split", "all", "--json"),
    ("search", "--study", "quick", "--trials", "3", "--workers", "1"),
    ("train", "--study", "best", "--name", "one", "--single"),
    ("train", *FEW, "--set", "fusion=gated", "--name", "two"),
    (
        "ablate",
        "--axis",
        "fusion=concat,gated",
        *FEW,
        "--workers",
        "1",
        "--out",
        "table.csv",
        "--force",
    ),
]
"""Verbs that write into the folder, in an order in which each has what it needs."""
READING: list[tuple[str, ...]] = [
    ("search", "--list"),
    ("runs", "ls"),
    ("runs", "show", "one"),
    ("runs", "best"),
    ("compare", "one", "two"),
    ("predict", "--run", "one", "--split", "test"),
    ("predict", "--run", "two", "--text", "good day", "--image", "posts/pairs/1.jpg"),
    ("evaluate", "--run", "latest", "--labels", "posts/answers.csv"),
    ("cache", "ls"),
    ("cache", "verify"),
    ("cache", "show", "1"),
    ("cache", "prune", "--unused"),
]
"""Verbs that need not write anything."""
WRITING: list[tuple[str, ...]] = [
    ("extract", "--split", "all"),
    ("predict", "--run", "one", "--data", "posts/pairs", "--out", "new.csv", "--force"),
    ("report", "one"),
    ("report", "one", "two", "--csv", "numbers", "--force"),
    ("export", "one", "--to", "exported", "--force"),
    ("predict", "--run", "exported", "--split", "test"),
    ("cache", "prune", "--unused", "--yes"),
    ("doctor",),
    ("runs", "rm", "two", "--yes"),
]
"""Verbs that write what the others need not have."""


def make_folder(folder: Path, text_model: Path | str) -> None:
    """Posts, settings and a study of theirs."""
    make_pairs(folder / "posts", 92)
    toml = tiny_toml(text_model, "mobilenetv2_035", '[extract]\nvariants = "none"\n')
    (folder / "mmsa.toml").write_text(toml)
    (folder / "studies").mkdir()
    (folder / "studies" / "quick.toml").write_text(STUDY)
