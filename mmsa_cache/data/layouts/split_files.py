"""The files of each split, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLIT_STEMS

_PART = re.compile(r"([-_.]?\d+([-_.]of[-_.](?P<all>\d+))?|[-_](un)?seen)$")
"""End of the name of one part of a split: a number, or ``seen`` as of Hateful Memes."""


def table_name(path: Path) -> str:
    """Common name of a table's parts: without number and suffix."""
    return _PART.sub("", path.stem)


def group_by_split(paths: Iterable[Path]) -> dict[str, Sequence[Path]]:
    """Groups tables by split: those named exactly so, or its parts, or with that prefix."""
    files = list(paths)
    by_split: dict[str, Sequence[Path]] = {}
    for split, names in SPLIT_STEMS.items():
        stems = "|".join(names)
        matches = [p for p in files if re.match(rf"({stems})([-_.\d]|$)", p.stem.lower())]
        exact = [path for path in matches if path.stem.lower() in names]
        parts = [path for path in matches if table_name(path).lower() in names]
        by_split[split] = exact or parts or matches
    return by_split


def are_table_parts(files: Sequence[Path]) -> bool:
    """Whether files are the parts of one table; a single file may have any name."""
    names = {table_name(path) + path.suffix for path in files}
    return len(files) == 1 or (len(names) == 1 and all(_PART.search(path.stem) for path in files))


def are_numbered_parts(files: Sequence[Path]) -> bool:
    """Whether the parts are numbered, so that they share no row."""
    return all(path.stem[-1:].isdigit() for path in files)


def check_complete(root: Path, files: Sequence[Path]) -> None:
    """Checks that all parts of a table exist if their names give the number of parts.

    Raises:
        DataError: Some are missing.
    """
    parts = [part for path in files if (part := _PART.search(path.stem)) and part["all"]]
    missing = {int(part["all"]) for part in parts} - {len(parts)}
    if missing:
        raise DataError(
            f"{root} holds {len(parts)} of the {max(missing)} parts of {files[0].name}.",
            "Put the others there too, or give a name without -of- to those that are.",
        )
