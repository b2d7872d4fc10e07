"""``mmsa.open`` and ``mmsa.extract``: sessions on cached features."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mmsa_cache.compose.extraction.crew import EngineName
from mmsa_cache.compose.extraction.extract import extract_splits
from mmsa_cache.compose.session.session import Session
from mmsa_cache.config.loading import load_settings, setting_keys
from mmsa_cache.config.settings import ALL, Settings
from mmsa_cache.data.stored_split import split_path
from mmsa_cache.errors import CacheNotFoundError, SettingsError
from mmsa_cache.files.paths import check_paths
from mmsa_cache.names import DEFAULT_ENCODER, SPLITS, suggest_or_list, unknown_name

from .calls import absolute_path, check_texts, engine_request, resolve_argument, work_in_project


def open(
    cache: str | Path | None = None, *, data: str | Path | None = None, **settings: object
) -> Session:
    """Opens the data, the encoders and the features of a folder: ``open("cache").bank("train")``.

    An argument beats a variable ``MMSA_*``, which beats ``mmsa.toml`` of the working folder or of
    one above, which beats the settings that the store keeps.

    Args:
        cache: The store that ``mmsa extract`` wrote; default: ``cache``.
        data: Folder or table of the posts.
        settings: Others by the names of the variables, in lower case: ``text_model``,
            ``image_model``, ``data_encoding``, ``device``, ``seed``, ``storage``.

    Raises:
        SettingsError: Names every setting that cannot be used.
        CacheNotFoundError: There is no such store; with the names of those nearby.
    """
    with work_in_project() as here:
        session = Session(resolve_settings(here, cache, data, settings))
        root = session.settings.cache.dir
        if not any(map(session.store.split, SPLITS)):
            stores = [*_stores_in(root), *_stores_in(root.parent)]
            name, *names = (os.path.relpath(path, here) for path in (root, *stores))
            hint = "Write one with mmsa extract."
            raise unknown_name("There is no store", name, names, hint, CacheNotFoundError)
    return session


def extract(
    cache: str | Path | None = None,
    *,
    data: str | Path | None = None,
    split: str = "all",
    encoders: str = "default",
    workers: int | None = None,
    engine: EngineName | None = None,
    address: str | None = None,
    **settings: object,
) -> Session:
    """Computes the features that the store lacks, and opens it.

    Args:
        cache: See `open`; it need not be there.
        data: See `open`.
        split: ``train``, ``val``, ``test`` or ``all``.
        encoders: Names of ``[encoders]`` in ``mmsa.toml``, joined by commas, or ``all``.
        workers: Worker processes; default: this process alone.
        engine: What runs them: processes here (``local``), or a cluster (``ray``).
        address: Of a Ray cluster.
        settings: See `open`.

    Raises:
        MmsaError: As the data, the encoders and the store raise.
    """
    with work_in_project() as here:
        check_texts(split=split, encoders=encoders)
        crew = engine_request(engine, workers, address)
        resolved = resolve_settings(here, cache, data, settings)
        split = ALL if split is None else split
        encoders = DEFAULT_ENCODER if encoders is None else encoders
        extract_splits(resolved, split, encoders, engine=crew)
        return Session(resolved)


def session_or_default(session: Session | None) -> Session:
    """The session of an argument; for None that of the working folder.

    Raises:
        SettingsError: The argument is no session.
    """
    if session is None:
        return open()
    if not isinstance(session, Session):
        raise SettingsError(
            f"A session is expected, received {session!r}.", "Give mmsa.open(…) first."
        )
    return session


def resolve_settings(
    here: Path, cache: str | Path | None, data: str | Path | None, others: Mapping[str, object]
) -> Settings:
    """The settings of a call.

    Args:
        here: Folder that its paths are relative to.
        cache: See `open`.
        data: See `open`.
        others: Other settings by name, see `open`.
    """
    check_paths(cache=cache, data=data)
    keys = setting_keys()
    unknown = [f"{name}{suggest_or_list(name, keys)}" for name in others if name not in keys]
    if unknown:
        raise SettingsError("There are no such settings.", "Correct them all.", unknown)
    values = {".".join(keys[name]): resolve_argument(here, value) for name, value in others.items()}
    if cache is not None:
        values["cache.dir"] = absolute_path(here, cache)
    if data is not None:
        values["data.root"] = data if "://" in str(data) else absolute_path(here, data)
    named = {"cache.dir": "cache=", "data.root": "data="}
    named |= {".".join(keys[name]): f"{name}=" for name in others}
    settings = load_settings(values, named=named)
    absolute = settings.cache.model_copy(update={"dir": settings.cache.dir.absolute()})
    return settings.model_copy(update={"cache": absolute})


def _stores_in(folder: Path) -> list[Path]:
    """The stores in a folder."""
    return [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if any(split_path(path, split).is_file() for split in SPLITS)
    ]
