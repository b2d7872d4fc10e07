"""Rows that an extraction set aside because their text or picture cannot be used.

``CACHE/data/SPLIT.set-aside.json`` lists them for each data folder: guid, line, faults, and the
hashes of the usable halves. Stage two leaves a row out as long as its files are unchanged. Once a
file is repaired the row counts again, and the store is reported as stale.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.files.locks import hold_lock
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.validation import validate

from .pairs import BadRow, Identity, Sample

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rows set aside in one data folder."""

    checked: str
    """`pictures_digest` of the rows whose pictures were decoded."""
    rows: tuple[BadRow, ...]


class SetAsideRecord(BaseModel):
    """Rows set aside, by the data folders that a split was extracted from."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(default=1, alias="schema")
    folders: dict[str, SetAside] = Field(default_factory=dict)

    def of(self, root: Path) -> SetAside | None:
        """The entry of a data folder."""
        return self.folders.get(str(root.resolve()))

    @property
    def identities(self) -> dict[Identity, BadRow]:
        """All rows by their identities."""
        return {row.identity: row for folder in self.folders.values() for row in folder.rows}


def set_aside_path(cache: Path, split: str) -> Path:
    """Path of the record of a split."""
    return cache / "data" / f"{split}.set-aside.json"


def pictures_digest(samples: Iterable[Sample], decoder: str) -> str:
    """Identifies an attempt to decode these pictures with this decoder (sha256, hex)."""
    digest = hashlib.sha256(f"{decoder}\n".encode())
    for sample in samples:
        digest.update(f"{sample.guid} {sample.image_sha256}\n".encode())
    return digest.hexdigest()


def count_reasons(rows: Iterable[BadRow]) -> dict[str, int]:
    """Reason → number of rows, the most frequent first."""
    counts = Counter(reason for row in rows for reason in {f.reason for f in row.faults})
    return dict(counts.most_common())


def read_set_aside(cache: Path, split: str) -> SetAsideRecord:
    """Reads the record of a split; an empty one if there is none.

    Raises:
        DamagedCacheError: The file is not a valid record.
    """
    path = set_aside_path(cache, split)
    message = f"{path} cannot be read."
    hint = "Delete it and run mmsa extract --on-bad skip again."
    try:
        raw = parse_json(read_regular(path, _MAX_BYTES, links=False))
    except (FileNotFoundError, NotADirectoryError):
        return SetAsideRecord()
    except (OSError, ValueError) as error:
        raise DamagedCacheError(message, hint, [str(error)]) from error
    return validate(SetAsideRecord, raw, message, hint, DamagedCacheError)


def write_set_aside(
    cache: Path, split: str, root: Path, checked: str, rows: Sequence[BadRow]
) -> Path:
    """Replaces the entry of one data folder in the record of a split.

    Args:
        cache: Root folder of the store.
        split: One of `SPLITS`.
        root: The data folder.
        checked: See `SetAside`.
        rows: The rows set aside.

    Returns:
        Path of the record.
    """
    path = set_aside_path(cache, split)
    make_folders(path.parent)
    with hold_lock(path.with_name(f".{path.name}.lock")):
        folders = read_set_aside(cache, split).folders | {
            str(root.resolve()): SetAside(checked, tuple(rows))
        }
        content = SetAsideRecord(folders=folders).model_dump(mode="json", by_alias=True)
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
    return path
