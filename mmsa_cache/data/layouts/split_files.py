"""Which files are of one split, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLIT_STEMS

_PART = re.compile(r"([-_.]?\d+([-_.]of[-_.](?P<all>\d+))?|[-_](un)?seen)$")
"""How the name of one of several files of a split ends: numbered, or as of Hateful Memes."""


def table_name(path: Path) -> str:
    """What the parts of a table are called, without their numbers and endings."""
    return _PART.sub("", path.stem)


def group_by_split(paths: Iterable[Path]) -> dict[str, Sequence[Path]]:
    """Tables by the split that their names begin with: those of its name alone, or numbered."""
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
    """Whether files are the parts of one table; a single one may have any name."""
    names = {table_name(path) + path.suffix for path in files}
    return len(files) == 1 or (len(names) == 1 and all(_PART.search(path.stem) for path in files))


def are_numbered_parts(files: Sequence[Path]) -> bool:
    """Whether parts are numbered: no row stands in two of them."""
    return all(path.stem[-1:].isdigit() for path in files)


def check_complete(root: Path, files: Sequence[Path]) -> None:
    """Refuses some of the parts of a table whose names say how many there are."""
    parts = [part for path in files if (part := _PART.search(path.stem)) and part["all"]]
    missing = {int(part["all"]) for part in parts} - {len(parts)}
    if missing:
        raise DataError(
            f"{root} holds {len(parts)} of the {max(missing)} parts of {files[0].name}.",
            "Put the others there too, or give a name without -of- to those that are.",
        )
