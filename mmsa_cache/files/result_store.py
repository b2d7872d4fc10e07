"""Content-addressed results of finished parts of long work."""

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
    """Results of finished parts of long work, a small file each, addressed by their identity.

    Args:
        folder: Created with the first result.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, identity: Mapping[str, object]) -> JsonObject | None:
        """The record that `put` stored for an identity; None if there is none."""
        try:
            content = parse_json(read_regular(self._path(identity), _MAX_BYTES))
            same = canonical_json(object_at(content, "of")) == canonical_json(identity)
            return dict(object_at(content, "record")) if same else None
        except (OSError, ValueError):
            return None

    def put(self, identity: Mapping[str, object], record: Mapping[str, object]) -> None:
        """Stores a record atomically."""
        make_folders(self._folder)
        content = {"of": identity, "record": record}
        write_atomically(self._path(identity), json.dumps(content).encode() + b"\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other processes from doing the same work.

        Raises:
            SettingsError: Another process is at work.
        """
        make_folders(self._folder)
        with try_lock(self._folder / ".lock") as free:
            if not free:
                raise SettingsError(f"Another process works on {self._folder}.", "Wait.")
            yield

    def _path(self, identity: Mapping[str, object]) -> Path:
        return self._folder / f"{digest(identity)[:24]}.json"
