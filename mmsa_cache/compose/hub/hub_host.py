"""A store in a data set repository of the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import write_new

from .host import CARD, RemoteStore, files_of_store, local_files
from .hub_repository import Commit, HubRepository


def parse_repository(url: str) -> str:
    """Parses ``hf://USER/REPO``; returns ``USER/REPO``.

    Raises:
        SettingsError: The address is invalid.
    """
    match = re.fullmatch(r"hf://(?:datasets/)?([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})", url)
    if match is None or re.search(r"[.]{2}|[-]{2}", url):
        raise SettingsError(f"{url[:200]!r} is no repository.", "Write hf://USER/REPO.")
    return match[1]


class HubHost:
    """A `Host` at the hub.

    Args:
        url: ``hf://USER/REPO``.

    Raises:
        SettingsError: The address is invalid.
    """

    source = "the hub"

    def __init__(self, url: str) -> None:
        self._repository = HubRepository(parse_repository(url), "dataset")
        self.name, self.title = self._repository.name, self._repository.title

    def look(self) -> RemoteStore:
        """The store at the newest commit."""
        return self._store_at(self._repository.look())

    def _store_at(self, commit: Commit) -> RemoteStore:
        return RemoteStore(files_of_store(self.title, commit.files), commit.revision)

    def fetch(self, remote: RemoteStore, names: Sequence[str], folder: Path) -> None:
        """Downloads files; resumes an interrupted download."""
        self._repository.fetch(remote.revision, names, folder)

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Uploads a store as one commit that replaces the store before."""
        write_new(folder / CARD, card.encode())
        parent = self._repository.make(private=private)
        self._store_at(parent)  # raises if there are other files
        names = [CARD, *local_files(folder)]
        patterns = ["features/*", "data/*"]
        return self._repository.put(folder, names, patterns, "mmsa cache push", parent)
