"""``hf://datasets/NAME``: downloads posts from the hub, into the cache of its client."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.config.hub_copy import HubData, use_local_copy
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.files import IMAGE_SUFFIXES
from mmsa_cache.data.tables import SUFFIXES

from .hub_repository import hub_errors

_NAMES = ("dataset_dict.json", "dataset_info.json", "state.json", "README.md")
_ENDINGS = (*SUFFIXES, *IMAGE_SUFFIXES, ".txt")


def fetch_data(settings: Settings) -> Settings:
    """Downloads a data set of the hub that is not on this machine.

    Only tables, shards, pictures and texts are downloaded: no code and no archives.

    Returns:
        Settings that name the local copy.

    Raises:
        SettingsError: The name is invalid.
        CacheError: The hub cannot be reached, or has no such data set for this user.
    """
    if settings.data.hub_name is None:
        return settings
    data_set = HubData.of(settings.data.hub_name)
    if data_set.copy() is None:
        say(f"Fetching {data_set.address}.")
        with hub_errors(data_set.repository):
            from huggingface_hub import HfApi, snapshot_download

            info = HfApi().dataset_info(data_set.repository, revision=data_set.revision)
            snapshot = snapshot_download(
                data_set.repository,
                repo_type="dataset",
                revision=info.sha,
                allow_patterns=[*_NAMES, *(f"*{e}" for s in _ENDINGS for e in (s, s.upper()))],
            )
        data_set.fetched(Path(snapshot))
    return settings.model_copy(update={"data": use_local_copy(settings.data)})
