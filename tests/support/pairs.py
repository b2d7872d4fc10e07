"""Generated pairs in the report's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "plain", "day", "sea", "rain", "sun"]
TONE = {"positive": ("good", (230, 200, 40)), "neutral": ("plain", (128, 128, 128))}
TONE["negative"] = ("bad", (40, 30, 120))


def make_pairs(root: Path, rows: int, test_rows: int = 12) -> None:
    rng = np.random.default_rng(0)
    (root / "pairs").mkdir(parents=True)
    labels = rng.choice(["positive", "neutral", "negative"], rows, p=[0.55, 0.2, 0.25])
    for i, label in enumerate(labels):
        word, colour = TONE[label]
        extra = " ".join(rng.choice(["day", "sea", "rain", "sun"], rng.integers(1, 5)))
        (root / "pairs" / f"{i}.txt").write_text(f"{word} {extra} {i}")
        noise = rng.integers(-20, 20, (24, 30, 3))
        Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(
            root / "pairs" / f"{i}.jpg"
        )
    cut = rows - test_rows
    lines = [f"{i},{label}\n" for i, label in enumerate(labels)]
    (root / "train.txt").write_text("guid,tag\n" + "".join(lines[:cut]))
    (root / "test_without_label.txt").write_text(
        "guid,tag\n" + "".join(f"{i},null\n" for i in range(cut, rows))
    )
    (root / "answers.csv").write_text("guid,tag\n" + "".join(lines[cut:]))
