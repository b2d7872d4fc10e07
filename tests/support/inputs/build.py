"""What an input is, and how its files are made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.data_folders import noise, saved

Build = Callable[[Path], None]
Row = tuple[str, str | None, str | None]
"""guid, class name and text; None without one."""


@dataclass(frozen=True)
class Input:
    """An input and the right reading of it, or the right message."""

    name: str
    build: Build
    """Makes it in an empty folder."""
    rows: Mapping[str, list[Row]] = field(default_factory=dict)
    """The good rows of each split there is."""
    notes: tuple[str, ...] = ()
    """Each is part of a line that a person is told."""
    problems: tuple[str, ...] = ()
    """What is wrong, in order: each is part of a message."""
    reason: str = ""
    """Of each bad row, with commas; empty where what is wrong is fatal."""
    flags: tuple[str, ...] = ()
    """Options of ``mmsa init`` and ``mmsa check``."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of ``[data]`` that are no options."""
    at: str = ""
    """What is named as the data, within the folder."""
    seen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What ``mmsa check`` counts, by part of its record."""
    pixels: Callable[[Any], bool] | None = None
    """What must hold of the odd row's pixels."""

    @property
    def variables(self) -> dict[str, str]:
        """The keys as variables of the environment."""
        return {f"MMSA_DATA_{key}".upper(): value for key, value in self.keys.items()}


ROWS: list[Row] = [
    ("0", "positive", "good day"),
    ("1", "neutral", "plain rain"),
    ("2", "negative", "bad sea"),
]
TRAIN = {"train": ROWS}


@functools.cache
def jpeg(seed: int) -> bytes:
    return saved(noise(seed))


def files(content: Mapping[str, str | bytes], pictures: int = 3, folder: str = "") -> Build:
    """Files with these contents, and pictures ``0.jpg`` and so on in a folder."""

    def build(root: Path) -> None:
        named = {f"{folder}/{n}.jpg": jpeg(n) for n in range(pictures)}
        for name, data in (named | dict(content)).items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    return build


def both(*builds: Build) -> Build:
    """One after the other."""

    def build(root: Path) -> None:
        for part in builds:
            part(root)

    return build


def csv(header: str, *lines: str, name: str = "train.csv", pictures: int = 3) -> Build:
    """One table, written as it stands."""
    return files({name: "".join(f"{line}\n" for line in (header, *lines))}, pictures)


def posts(header: str, shape: str = "{text},{image},{label}", name: str = "train.csv") -> Build:
    """The three posts of `ROWS` as a table whose lines have a shape."""
    lines = [
        shape.format(n=n, text=text, image=f"{guid}.jpg", label=label)
        for n, (guid, label, text) in enumerate(ROWS)
    ]
    return csv(header, *lines, name=name)


def labelled(*labels: str | None) -> list[Row]:
    """The rows of `ROWS` with other labels."""
    return [(guid, label, text) for (guid, _, text), label in zip(ROWS, labels, strict=True)]
