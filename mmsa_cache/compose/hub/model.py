"""Exports in model repositories of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rich.filesize import decimal

from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.files.disk import link_or_copy, make_folders
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.runs.folder import MODEL_FILE

from ..export_folder import (
    CONFIG,
    ENCODERS,
    MOST_TEXT,
    OWN_FILES,
    is_export,
    is_of_export,
    most_bytes,
    whole_folder,
)
from .hub_repository import Commit, HubRepository
from .verification import describe_difference, matches_remote

PREFIX = "hf://"
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_SOURCE = "the hub"
_MAX_LISTED = 10


def model_repository(address: str) -> HubRepository:
    """The model repository of ``hf://USER/REPO``, or of ``USER/REPO``.

    Raises:
        SettingsError: The address is invalid.
    """
    name = address.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{address[:200]!r} is no repository.", f"Write {PREFIX}USER/REPO.")
    return HubRepository(name, "model")


def push_model(hub: HubRepository, folder: Path, files: Mapping[str, int], *, private: bool) -> str:
    """Uploads an export, in place of an older one; makes the repository if it is missing.

    Args:
        hub: The repository.
        folder: The export.
        files: Bytes of its files, by name.
        private: The repository must be private.

    Returns:
        The new revision.

    Raises:
        SettingsError: The repository is public, or holds something else.
        CacheError: The hub cannot be reached, or refuses.
    """
    parent = hub.make(private=private)
    _check_replaceable(hub, parent)
    say(f"Pushing {len(files)} files, {decimal(sum(files.values()))}, to {hub.title}.")
    return hub.put(folder, [*files], [*OWN_FILES, f"{ENCODERS}/*"], "mmsa export", parent)


def _check_replaceable(hub: HubRepository, commit: Commit) -> None:
    """Raises an error unless a repository is empty or holds an export."""
    sizes = {path: file.size for path, file in commit.files if path != ".gitattributes"}
    if not sizes:
        return
    if sizes.get(CONFIG, MOST_TEXT + 1) <= MOST_TEXT:
        with temporary_folder() as folder:
            hub.fetch(commit.revision, [CONFIG], folder)
            if is_export(folder):
                return
    raise SettingsError(
        f"{hub.name} holds what mmsa export did not write: nothing was pushed.",
        "Name another repository; mmsa makes it.",
        sorted(sizes)[:_MAX_LISTED],
    )


def fetch_model(address: str, *, online: bool) -> Path:
    """The local folder of an export of the hub, in the cache of the hub's client.

    Args:
        address: ``hf://USER/REPO``.
        online: Whether the newest export is downloaded if it is missing.

    Raises:
        SettingsError: The address is invalid.
        ModelError: The export is not on this machine, or its files are invalid.
        CacheError: The hub cannot be reached, or has no such model for this user.
    """
    from huggingface_hub.constants import HF_ASSETS_CACHE

    hub = model_repository(address)
    folder = Path(HF_ASSETS_CACHE) / "mmsa/models" / hub.name.replace("/", 2 * "-")
    if online:
        _fetch(hub, folder)
    elif not is_export(folder):
        raise ModelError(
            f"The model {address} is not on this machine.",
            f"Fetch it: mmsa predict --run {address} --online --text …, or in Python "
            f"load_model({address!r}, online=True).",
        )
    return folder


def _fetch(hub: HubRepository, folder: Path) -> None:
    """Downloads the newest export into a folder, unless it is there."""
    commit = hub.look()
    files = {path: file for path, file in commit.files if is_of_export(path)}
    problems = [f"it has no {name}" for name in (CONFIG, MODEL_FILE) if name not in files]
    problems += [
        f"{path} has {file.size} bytes"
        for path, file in files.items()
        if file.size > most_bytes(path)
    ]
    if problems:
        raise _no_export(hub, problems)
    local = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if local == files.keys() and all(
        matches_remote(folder / p, f, _SOURCE) for p, f in files.items()
    ):
        return
    size = decimal(sum(file.size for file in files.values()))
    say(f"Fetching {hub.title}: {len(files)} files, {size}.")
    snapshot = hub.fetch(commit.revision, [*files])
    with whole_folder(folder, force=True) as staging:
        for path in files:
            make_folders((staging / path).parent)
            link_or_copy((snapshot / path).resolve(), staging / path)  # the snapshot has links
        problems = [
            f"{path}: {problem}"
            for path, file in files.items()
            if (problem := describe_difference(staging / path, file, _SOURCE))
        ]
        if problems or not is_export(staging):
            raise _no_export(hub, problems)


def _no_export(hub: HubRepository, problems: list[str]) -> ModelError:
    return ModelError(
        f"What {hub.title} holds is no export of mmsa.",
        "Name one that mmsa export --push wrote.",
        problems,
    )
