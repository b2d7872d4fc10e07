"""A data set repository of the hub that holds a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import write_new

from .at_hub import AtHub, Commit
from .host import CARD, Remote, files_of_store, local_files


def repository_of(url: str) -> str:
    """``hf://USER/REPO`` → ``USER/REPO``.

    Raises:
        SettingsError: It names none.
    """
    match = re.fullmatch(r"hf://(?:datasets/)?([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})", url)
    if match is None or re.search(r"[.]{2}|[-]{2}", url):
        raise SettingsError(f"{url[:200]!r} is no repository.", "Write hf://USER/REPO.")
    return match[1]


class Repository:
    """A `Host` of the hub.

    Args:
        url: ``hf://USER/REPO``.

    Raises:
        SettingsError: It names none.
    """

    teller = "the hub"

    def __init__(self, url: str) -> None:
        self._hub = AtHub(repository_of(url), "dataset")
        self.name, self.title = self._hub.name, self._hub.title

    def look(self) -> Remote:
        """What it holds at its newest commit."""
        return self._store(self._hub.look())

    def _store(self, found: Commit) -> Remote:
        return Remote(files_of_store(self.title, found.files), found.revision)

    def fetch(self, remote: Remote, names: Sequence[str], folder: Path) -> None:
        """Downloads files; what an interrupted call downloaded is kept."""
        self._hub.fetch(remote.revision, names, folder)

    def put(self, folder: Path, card: str, *, private: bool) -> str:
        """Uploads a store as one state of the repository, in place of the one before."""
        write_new(folder / CARD, card.encode())
        before = self._hub.make(private=private)
        self._store(before)  # it holds nothing else
        names = [CARD, *local_files(folder)]
        return self._hub.put(folder, names, ["features/*", "data/*"], "mmsa cache push", before)
