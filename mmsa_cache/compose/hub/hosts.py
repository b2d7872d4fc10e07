"""Opens the host of an address."""

from __future__ import annotations

from .host import Host
from .hub_host import HubHost
from .object_store import ObjectStore


def open_host(url: str) -> Host:
    """Opens ``hf://USER/REPO``, or the address of an object store.

    Raises:
        SettingsError: The address is neither.
    """
    return HubHost(url) if url.startswith("hf://") else ObjectStore(url)
