"""Which database holds the studies."""

from __future__ import annotations

from fuse.search.address import Address, address_of
from fuse.search.database import DATABASE
from mmsa_cache.config.settings import Settings


def studies_database(settings: Settings) -> Address:
    """The database that is set, else the working folder's own.

    Raises:
        SettingsError: What is set is no address.
    """
    storage = settings.storage
    return address_of(DATABASE if storage is None else storage.get_secret_value())
