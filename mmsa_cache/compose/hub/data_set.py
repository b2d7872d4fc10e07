"""``hf://datasets/NAME``: posts of the hub, fetched into the cache of its client."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.config.hub_copy import HubData, use_local_copy
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.files import IMAGE_SUFFIXES
from mmsa_cache.data.tables import SUFFIXES

from .at_hub import asking

_NAMES = ("dataset_dict.json", "dataset_info.json", "state.json", "README.md")
_ENDINGS = (*SUFFIXES, *IMAGE_SUFFIXES, ".txt")


def fetched(settings: Settings) -> Settings:
    """Settings whose data is on this machine: what the hub has of it is fetched if it is not.

    Tables, shards, pictures and texts are; code, archives and anything else are not.

    Raises:
        SettingsError: The name is none.
        CacheError: The hub cannot be reached, or has no such data set for this user.
    """
    if settings.data.hub_name is None:
        return settings
    wanted = HubData.of(settings.data.hub_name)
    if wanted.copy() is None:
        say(f"Fetching {wanted.address}.")
        with asking(wanted.repository):
            from huggingface_hub import HfApi, snapshot_download

            found = HfApi().dataset_info(wanted.repository, revision=wanted.revision)
            snapshot = snapshot_download(
                wanted.repository,
                repo_type="dataset",
                revision=found.sha,
                allow_patterns=[*_NAMES, *(f"*{e}" for s in _ENDINGS for e in (s, s.upper()))],
            )
        wanted.fetched(Path(snapshot))
    return settings.model_copy(update={"data": use_local_copy(settings.data)})
