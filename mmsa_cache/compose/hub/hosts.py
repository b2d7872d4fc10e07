"""The host that an address names."""

from __future__ import annotations

from .host import Host
from .object_store import ObjectStore
from .repository import Repository


def host_of(url: str) -> Host:
    """``hf://USER/REPO``, or the address of an object store.

    Raises:
        SettingsError: It is neither.
    """
    return Repository(url) if url.startswith("hf://") else ObjectStore(url)
