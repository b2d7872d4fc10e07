"""Settings completed from the store, so that no command repeats what extraction was given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.config.hub_copy import hub_address, use_local_copy
from mmsa_cache.config.sections import (
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    ImageSettings,
    JointSettings,
    TextSettings,
)
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.layouts.classes import LABELS
from mmsa_cache.data.layouts.rows import classes_of
from mmsa_cache.errors import DamagedCacheError, DataError, SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.validation import validate

from .path_policy import DATA_HINT, ENCODER_PATHS, PathPolicy
from .store import Store

_CHECKED = (
    "encoding",
    "encoding_errors",
    "max_chars",
    "allow_empty_text",
    "classes",
    "columns",
    "rows",
    "missing",
)
"""Keys of ``[data]`` that a store keeps and that may not contradict it."""
_DATA = (*_CHECKED, "note")
"""Keys of ``[data]`` that a store keeps, besides ``root``."""
_BESIDE = f"..{os.sep}"
"""Prefix of stored paths that lie beside the store."""


def stored_data_settings(settings: Settings, store: Path) -> Fields:
    """The settings under which rows are read, as a store keeps them.

    A data folder beside the store is kept relative to it, so that a project can be moved.
    """
    values = settings.data.model_dump(mode="json")
    data: Fields = {key: values[key] for key in _DATA}
    if settings.data.root is not None:
        root = settings.data.root.resolve()
        data["root"] = hub_address(root) or _relative_to_store(str(root), store)
    return {"data": data, "variants": settings.extract.variants, "seed": settings.seed}


def stored_encoder_settings(settings: Settings, modality: str) -> Fields:
    """The settings that lead to an encoder, as a store keeps them.

    Files beside the store are kept relative to it.

    Args:
        settings: Have the encoder as the default one of its modality.
        modality: ``text`` or ``image``.
    """
    store = settings.cache.dir
    sections: Fields = {
        section: {
            key: _relative_to_store(value, store) if (section, key) in ENCODER_PATHS else value
            for key, value in getattr(settings, section).model_dump(mode="json").items()
        }
        for section in (modality, "joint")
    }
    return sections | {"tokens": settings.extract.tokens, "seed": settings.seed}


def _relative_to_store(value: Any, store: Path) -> Any:
    """A path beside a store, relative to it; anything else unchanged."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path, inside = Path(value).resolve(), store.resolve()
    return os.path.relpath(path, inside) if path.is_relative_to(inside.parent) else value


def _absolute_paths(values: object, section: str, store: Path) -> object:
    """A stored section whose relative paths are made absolute."""
    if not isinstance(values, dict):
        return values
    return {
        key: str(Path(os.path.normpath(store.absolute() / value)))
        if (section, key) in ENCODER_PATHS and isinstance(value, str) and value.startswith(_BESIDE)
        else value
        for key, value in values.items()
    }


def use_stored_data_settings(
    settings: Settings, store: Store, policy: PathPolicy, *, extracting: bool
) -> Settings:
    """Fills ``[data]`` and the variants from the store where the settings leave them open.

    Extraction takes the seed of augmentation too; elsewhere the seed is that of training.

    Args:
        settings: The command's.
        store: Where its features are.
        policy: Where the stored data folder may be.
        extracting: Settings may contradict the store, which then keeps the new ones.

    Raises:
        SettingsError: A setting contradicts the store.
        DamagedCacheError: The store holds invalid settings.
    """
    first = next((split for name in SPLITS if (split := store.split(name))), None)
    if first is None:
        return settings
    about, told = first[0], dict(first[0].told)
    stored = _section(DataSettings, told.get("data"), store.root)
    variants = _section(
        ExtractSettings, {"variants": told.get("variants", "report")}, store.root
    ).variants
    if not extracting:
        _check_contradictions(settings, stored, variants, about.classes, store.root)
    data = {key: getattr(stored, key) for key in {*_DATA} - settings.data.model_fields_set}
    if "root" not in settings.data.model_fields_set:
        data |= _stored_root(stored, store.root, policy)
    if settings.data.classes is None and stored.classes is None:
        data |= _stored_classes(settings, about.classes, extracting=extracting)
    changes: dict[str, object] = {"data": settings.data.model_copy(update=data)}
    if "variants" not in settings.extract.model_fields_set:
        changes["extract"] = settings.extract.model_copy(update={"variants": variants})
    if extracting and "seed" not in settings.model_fields_set:
        seed = told.get("seed", settings.seed)
        changes["seed"] = _section(Settings, {"seed": seed}, store.root).seed
    return settings.model_copy(update=changes)


def _check_contradictions(
    settings: Settings,
    stored: DataSettings,
    variants: object,
    classes: tuple[str, ...],
    root: Path,
) -> None:
    """Refuses explicit settings that differ from those of the store.

    Args:
        settings: The command's.
        stored: ``[data]`` of the store.
        variants: ``[extract] variants`` of the store.
        classes: Those of its rows, compared where no classes are set.
        root: The folder of the store.
    """
    own = settings.data.model_copy(update={} if settings.data.classes else {"classes": classes})
    stored = stored.model_copy(update={"classes": classes})
    pairs: list[tuple[str, Any, Any]] = [
        (f"[data] {key}", getattr(own, key), getattr(stored, key))
        for key in settings.data.model_fields_set & {*_CHECKED}
    ]
    if "variants" in settings.extract.model_fields_set:
        pairs.append(("[extract] variants", settings.extract.variants, variants))
    problems = [
        f"{name}: {here!r} is set (flag, variable or mmsa.toml), the store was made with {there!r}"
        for name, here, there in sorted(pairs)
        if here != there
    ]
    if problems:
        raise SettingsError(
            f"{len(problems)} setting(s) contradict the store {root}.",
            "Leave them out to use what is there, or run mmsa extract with them.",
            problems,
        )


def _stored_root(stored: DataSettings, store: Path, policy: PathPolicy) -> dict[str, object]:
    """The data folder of a store: the local copy of hub data, or a folder that may be read."""
    copy = use_local_copy(stored)
    if copy.root != stored.root:
        return {"root": copy.root, "follow_links": copy.follow_links}
    if stored.root is not None:
        root = Path(os.path.normpath(store / stored.root))
        if policy.allows_with_note(root, "the store's data folder", DATA_HINT):
            return {"root": root}
    return {}


def _stored_classes(
    settings: Settings, stored: tuple[str, ...], *, extracting: bool
) -> dict[str, tuple[str, ...]]:
    """The classes of a store where none are set.

    An extraction finds the classes anew, unless the new rows only lack some of the three
    sentiments.
    """
    if not extracting:
        return {"classes": stored}
    has_data = settings.data.root is not None and settings.data.root.exists()
    with contextlib.suppress(DataError):  # reading the rows reports it
        if stored == LABELS and has_data and {*classes_of(settings.data)} < {*LABELS}:
            return {"classes": stored}
    return {}


def use_stored_encoder(settings: Settings, modality: str, encoder: StoredEncoder) -> Settings:
    """Settings whose default encoder of a modality is one of a store.

    Raises:
        DamagedCacheError: The store holds invalid settings.
    """
    told = encoder.told
    kind: Any = {"text": TextSettings, "image": ImageSettings}[modality]
    root = settings.cache.dir
    folder = encoder.folder(root)
    tokens = _section(ExtractSettings, {"tokens": told.get("tokens", "keep")}, folder).tokens
    seed = _section(Settings, {"seed": told.get("seed", settings.seed)}, folder).seed
    own = _absolute_paths(told.get(modality), modality, root)
    joint = _absolute_paths(told.get("joint"), "joint", root)
    return settings.model_copy(
        update={
            modality: _section(kind, own, folder),
            "joint": _section(JointSettings, joint, folder),
            "extract": settings.extract.model_copy(update={"tokens": tokens}),
            "seed": seed,
        }
    )


def apply_explicit_values(
    stored: Settings, settings: Settings, modality: str, name: str
) -> Settings:
    """Settings of `use_stored_encoder`, overridden by what the command sets explicitly."""
    own = getattr(settings, modality)
    keys = own.model_fields_set if name == DEFAULT_ENCODER else ()
    section = {key: getattr(own, key) for key in keys}
    extract = {key: getattr(settings.extract, key) for key in settings.extract.model_fields_set}
    changes = {
        modality: getattr(stored, modality).model_copy(update=section),
        "extract": stored.extract.model_copy(update=extract),
        "seed": settings.seed,
    }
    return stored.model_copy(update=changes)


def use_stored_encoders(
    settings: Settings, encoders: Mapping[tuple[str, str], StoredEncoder]
) -> Settings:
    """Settings that describe encoders as a store does.

    Args:
        settings: The command's.
        encoders: By modality and name.
    """
    for (modality, name), encoder in encoders.items():
        own = use_stored_encoder(settings, modality, encoder)
        if name == DEFAULT_ENCODER:
            settings = own.model_copy(update={"seed": settings.seed})
            continue
        sections = {modality: getattr(own, modality)}
        if own.joint.model is not None:
            sections["joint"] = own.joint
        if (previous := settings.encoders.get(name)) is not None:
            values = {key: getattr(previous, key) for key in (*MODALITIES, "joint")}
            sections = {**{k: v for k, v in values.items() if v is not None}, **sections}
        named = {**settings.encoders, name: EncoderSettings(**sections)}
        settings = settings.model_copy(update={"encoders": named})
    return settings


def _section(kind: Any, values: object, path: Path) -> Any:
    message = f"{path} holds invalid settings:"
    return validate(kind, values or {}, message, "Run mmsa extract again.", DamagedCacheError)
