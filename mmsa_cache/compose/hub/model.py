"""Exports on the hub: a model repository that holds one."""

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
from .at_hub import AtHub, Commit
from .host import RemoteFile
from .verification import difference, is_same

PREFIX = "hf://"
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_TELLER = "the hub"
_LISTED = 10


def model_of(address: str) -> AtHub:
    """The repository of ``hf://USER/REPO``, or of ``USER/REPO``.

    Raises:
        SettingsError: It names none.
    """
    name = address.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{address[:200]!r} is no repository.", f"Write {PREFIX}USER/REPO.")
    return AtHub(name, "model")


def push_model(hub: AtHub, folder: Path, files: Mapping[str, int], *, private: bool) -> str:
    """Puts an export into a repository, which is made if it is missing, in place of an older one.

    Args:
        hub: The repository.
        folder: The export.
        files: Bytes of its files, by name.
        private: Nobody else may see the repository.

    Returns:
        The new revision.

    Raises:
        SettingsError: The repository is public, or holds something else.
        CacheError: The hub cannot be reached, or refuses.
    """
    before = hub.make(private=private)
    _check_replaced(hub, before)
    say(f"Pushing {len(files)} files, {decimal(sum(files.values()))}, to {hub.title}.")
    return hub.put(folder, [*files], [*OWN_FILES, f"{ENCODERS}/*"], "mmsa export", before)


def _check_replaced(hub: AtHub, before: Commit) -> None:
    sizes = {path: file.size for path, file in before.files if path != ".gitattributes"}
    if not sizes:
        return
    if sizes.get(CONFIG, MOST_TEXT + 1) <= MOST_TEXT:
        with temporary_folder() as place:
            hub.fetch(before.revision, [CONFIG], place)
            if is_export(place):
                return
    raise SettingsError(
        f"{hub.name} holds what mmsa export did not write: nothing was pushed.",
        "Name another repository; mmsa makes it.",
        sorted(sizes)[:_LISTED],
    )


def fetched_model(address: str, *, online: bool) -> Path:
    """The folder of an export of the hub, in the cache of the hub's client.

    Args:
        address: ``hf://USER/REPO``.
        online: Whether the hub is asked: what it has now is fetched if it is not here.

    Raises:
        SettingsError: The address is none.
        ModelError: It is not here, or no export.
        CacheError: The hub cannot be reached, or has no such model for this user.
    """
    from huggingface_hub.constants import HF_ASSETS_CACHE

    hub = model_of(address)
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


def _fetch(hub: AtHub, folder: Path) -> None:
    found = hub.look()
    files = {path: file for path, file in found.files if is_of_export(path)}
    problems = [f"it has no {name}" for name in (CONFIG, MODEL_FILE) if name not in files]
    problems += [
        f"{path} has {file.size} bytes"
        for path, file in files.items()
        if file.size > most_bytes(path)
    ]
    if problems:
        raise _no_export(hub, problems)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if there == files.keys() and all(is_same(folder / p, f, _TELLER) for p, f in files.items()):
        return
    size = decimal(sum(file.size for file in files.values()))
    say(f"Fetching {hub.title}: {len(files)} files, {size}.")
    snapshot = hub.fetch(found.revision, [*files])
    with whole_folder(folder, force=True) as place:
        for path in files:
            make_folders((place / path).parent)
            link_or_copy((snapshot / path).resolve(), place / path)  # the client has links there
        problems = _differences(place, files)
        if problems or not is_export(place):
            raise _no_export(hub, problems)


def _differences(folder: Path, files: Mapping[str, RemoteFile]) -> list[str]:
    found = {path: difference(folder / path, file, _TELLER) for path, file in files.items()}
    return [f"{path}: {problem}" for path, problem in found.items() if problem]


def _no_export(hub: AtHub, problems: list[str]) -> ModelError:
    return ModelError(
        f"What {hub.title} holds is no export of mmsa.",
        "Name one that mmsa export --push wrote.",
        problems,
    )
