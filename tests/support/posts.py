"""Tables of posts whose text says their class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .data_folders import noise, saved

_WORDS = ("good", "plain", "bad")


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A CSV of rows that all have the same columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def posts(
    root: Path, count: int, classes: Sequence[str], first: int = 0, *, name: str = ""
) -> list[dict[str, str]]:
    """Rows ``guid,text,image,label`` of posts in turn of each class, their pictures written.

    Args:
        root: The data folder.
        count: Number of posts.
        classes: Class names.
        first: Number of the first post.
        name: What guids and pictures begin with.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + count):
        code = number % len(classes)
        image = f"images/{name}{number}.jpg"
        (root / image).write_bytes(saved(noise(1000 * code + number)))
        text = f"{_WORDS[code % 3]} {'day' if code < 3 else 'sea'} #{number}"
        rows.append(
            {"guid": f"{name}{number}", "text": text, "image": image, "label": classes[code]}
        )
    return rows
