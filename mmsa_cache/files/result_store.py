"""Finished pieces of long work, content-addressed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmsa_cache.errors import SettingsError
from mmsa_cache.json_value import JsonObject, object_at

from .disk import make_folders, write_atomically
from .hashing import canonical_json, digest
from .locks import try_lock
from .untrusted import parse_json, read_regular

_MAX_BYTES = 16 << 20


class ResultStore:
    """Finished pieces of long work, a small file each, addressed by their identity.

    Args:
        folder: Made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, identity: Mapping[str, object]) -> JsonObject | None:
        """What `put` was given for the same identity; None where there is none."""
        try:
            found = parse_json(read_regular(self._path(identity), _MAX_BYTES))
            same = canonical_json(object_at(found, "of")) == canonical_json(identity)
            return dict(object_at(found, "record")) if same else None
        except (OSError, ValueError):
            return None

    def put(self, identity: Mapping[str, object], record: Mapping[str, object]) -> None:
        """Stores a record atomically."""
        make_folders(self._folder)
        content = {"of": identity, "record": record}
        write_atomically(self._path(identity), json.dumps(content).encode() + b"\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other processes from doing the same work meanwhile.

        Raises:
            SettingsError: One is at work.
        """
        make_folders(self._folder)
        with try_lock(self._folder / ".lock") as free:
            if not free:
                raise SettingsError(f"Another process works on {self._folder}.", "Wait.")
            yield

    def _path(self, identity: Mapping[str, object]) -> Path:
        return self._folder / f"{digest(identity)[:24]}.json"
