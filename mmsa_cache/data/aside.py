"""Rows that an extraction set aside because their text or picture cannot be used.

``CACHE/SPLIT/set-aside.json`` lists them for each data folder: guid, line, what is wrong, and the
hashes of the halves that can be used. A row is left out by stage two as long as its files are what
they were; once one is mended the row counts again, and the cache is stale, which is said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.hashing import canonical, rows_digest

from .pairs import BadRow, Fault, Identity, Sample

RECORD = "set-aside.json"
SCHEMA = 1
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Aside:
    """What was set aside of one data folder."""

    checked: str
    """`pictures_digest` of the rows whose pictures were tried."""
    rows: tuple[BadRow, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What was set aside of every data folder that a split was extracted from."""

    folders: Mapping[str, Aside] = field(default_factory=dict)

    @property
    def identities(self) -> dict[Identity, BadRow]:
        """All rows by what changes when their files do."""
        return {row.identity: row for found in self.folders.values() for row in found.rows}


def path_of(cache: Path, split: str) -> Path:
    """Where the record of a split lies."""
    return cache / split / RECORD


def pictures_digest(samples: Iterable[Sample], decoder: str) -> str:
    """What identifies an attempt to decode these pictures (hex)."""
    return rows_digest([(decoder, 0, ""), *((s.guid, 0, s.image_sha256) for s in samples)])


def reasons_of(rows: Iterable[BadRow]) -> dict[str, int]:
    """Reason → rows, the most frequent first."""
    count = Counter(reason for row in rows for reason in {f.reason for f in row.faults})
    return dict(count.most_common())


def read(cache: Path, split: str) -> Record:
    """Reads the record of a split; an empty one where nothing was ever set aside.

    Raises:
        DamagedCacheError: It is not what was written.
    """
    path = path_of(cache, split)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        raw = json.loads(path.read_bytes())
        if raw["schema"] != SCHEMA:
            raise ValueError(f"schema {raw['schema']!r}, expected {SCHEMA}")
        return Record({root: _aside(part) for root, part in raw["folders"].items()})
    except (FileNotFoundError, NotADirectoryError):
        return Record()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCacheError(
            f"{path} cannot be read: {error!r}.",
            "Delete it and run mmsa extract --on-bad skip again.",
        ) from error


def write(cache: Path, split: str, root: Path, checked: str, rows: Sequence[BadRow]) -> Path:
    """Replaces what was set aside of one data folder.

    Args:
        cache: Root folder of the caches.
        split: ``train`` or ``test``.
        root: The data folder.
        checked: See `Aside`.
        rows: The rows set aside.

    Returns:
        The record's path.
    """
    path = path_of(cache, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        folders = dict(read(cache, split).folders) | {str(root): Aside(checked, tuple(rows))}
        content = {"schema": SCHEMA, "folders": {r: asdict(part) for r, part in folders.items()}}
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
    return path


def _aside(raw: Any) -> Aside:
    return Aside(_text(raw["checked"]), tuple(_row(row) for row in raw["rows"]))


def _row(raw: Any) -> BadRow:
    faults = tuple(Fault(_text(f["reason"]), _text(f["message"])) for f in raw["faults"])
    hashes = _text(raw["text_sha256"]), _text(raw["image_sha256"])
    return BadRow(_text(raw["guid"]), int(raw["line"]), faults, *hashes)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{canonical(value)[:40]!r} is no text")
    return value
