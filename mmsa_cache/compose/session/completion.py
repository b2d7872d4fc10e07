"""Settings completed from the store: what extraction was told need not be repeated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.config.hub_copy import address_of, with_copy
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
"""Keys of ``[data]`` that a store keeps and that must not contradict it."""
_DATA = (*_CHECKED, "note")
"""Those that a store keeps."""
_BESIDE = f"..{os.sep}"
"""How a path that a store keeps begins where it lies beside the store."""


def stored_data_settings(settings: Settings, store: Path) -> Fields:
    """What a store keeps of the settings that its rows were read under.

    The data folder is kept relative to the store where both lie in one folder, so that a project
    can be moved.
    """
    values = settings.data.model_dump(mode="json")
    kept: Fields = {key: values[key] for key in _DATA}
    if settings.data.root is not None:
        root = settings.data.root.resolve()
        kept["root"] = address_of(root) or _kept(str(root), store)
    return {"data": kept, "variants": settings.extract.variants, "seed": settings.seed}


def stored_encoder_settings(settings: Settings, modality: str) -> Fields:
    """What a store keeps of the settings that led to an encoder.

    Files beside the store are kept relative to it, as the data folder is.

    Args:
        settings: Those with the encoder in the place of the default one.
        modality: ``text`` or ``image``.
    """
    store = settings.cache.dir
    told: Fields = {
        section: {
            key: _kept(value, store) if (section, key) in ENCODER_PATHS else value
            for key, value in getattr(settings, section).model_dump(mode="json").items()
        }
        for section in (modality, "joint")
    }
    return told | {"tokens": settings.extract.tokens, "seed": settings.seed}


def _kept(value: Any, store: Path) -> Any:
    """A path beside a store, relative to it; anything else as it is."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path, inside = Path(value).resolve(), store.resolve()
    return os.path.relpath(path, inside) if path.is_relative_to(inside.parent) else value


def _found(values: object, section: str, store: Path) -> object:
    """A section that a store was told, with the paths that are kept relative to it made whole."""
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
    """Settings whose ``[data]`` and variants are those of the store, where they say nothing.

    Extraction takes the seed of the copies too; elsewhere it is that of training.

    Args:
        settings: The command's.
        store: Where its features are.
        policy: Where the data folder may be that the store was told.
        extracting: Settings may differ from what the store was told: they are what it is told now.

    Raises:
        SettingsError: A setting contradicts the store.
        DamagedCacheError: What the store was told are no settings.
    """
    found = next((found for split in SPLITS if (found := store.split(split))), None)
    if found is None:
        return settings
    told = dict(found[0].told)
    known = _section(DataSettings, told.get("data"), store.root)
    extract = _section(ExtractSettings, {"variants": told.get("variants", "report")}, store.root)
    classes = {"classes": found[0].classes}  # those of the data, where none are set
    own = settings.data.model_copy(update={} if settings.data.classes else classes)
    made = known.model_copy(update=classes)
    pairs: list[tuple[str, Any, Any]] = [
        (f"[data] {key}", getattr(own, key), getattr(made, key))
        for key in settings.data.model_fields_set & {*_CHECKED}
    ]
    if "variants" in settings.extract.model_fields_set:
        pairs.append(("[extract] variants", settings.extract.variants, extract.variants))
    wrong = [
        f"{name}: {here!r} is set (flag, variable or mmsa.toml), the store was made with {there!r}"
        for name, here, there in sorted(pairs)
        if here != there
    ]
    if wrong and not extracting:
        raise SettingsError(
            f"{len(wrong)} setting(s) contradict the store {store.root}.",
            "Leave them out to use what is there, or run mmsa extract with them.",
            wrong,
        )
    taken = {key: getattr(known, key) for key in {*_DATA} - settings.data.model_fields_set}
    copied = with_copy(known)
    if "root" not in settings.data.model_fields_set and copied.root != known.root:
        taken |= {"root": copied.root, "follow_links": copied.follow_links}
    elif "root" not in settings.data.model_fields_set and known.root is not None:
        root = Path(os.path.normpath(store.root / known.root))
        if policy.allows_with_note(root, "the store's data folder", DATA_HINT):
            taken["root"] = root
    if settings.data.classes is None and known.classes is None:
        taken |= _classes(settings, found[0].classes, extracting=extracting)
    changes: dict[str, object] = {"data": settings.data.model_copy(update=taken)}
    if "variants" not in settings.extract.model_fields_set:
        changes["extract"] = settings.extract.model_copy(update={"variants": extract.variants})
    if extracting and "seed" not in settings.model_fields_set:
        seed = told.get("seed", settings.seed)
        changes["seed"] = _section(Settings, {"seed": seed}, store.root).seed
    return settings.model_copy(update=changes)


def _classes(
    settings: Settings, stored: tuple[str, ...], *, extracting: bool
) -> dict[str, tuple[str, ...]]:
    """The classes of a store where none are set; an extraction finds them anew unless it would only
    leave some of the three sentiments out."""
    if not extracting:
        return {"classes": stored}
    there = settings.data.root is not None and settings.data.root.exists()
    with contextlib.suppress(DataError):  # reading the rows says what is wrong
        if stored == LABELS and there and {*classes_of(settings.data)} < {*LABELS}:
            return {"classes": stored}
    return {}


def use_stored_encoder(settings: Settings, modality: str, encoder: StoredEncoder) -> Settings:
    """Settings that lead to an encoder of a store, as the default one of its modality.

    Raises:
        DamagedCacheError: What the store was told are no settings.
    """
    told = encoder.told
    kind: Any = {"text": TextSettings, "image": ImageSettings}[modality]
    root = settings.cache.dir
    where = encoder.folder(root)
    tokens = _section(ExtractSettings, {"tokens": told.get("tokens", "keep")}, where).tokens
    seed = _section(Settings, {"seed": told.get("seed", settings.seed)}, where).seed
    return settings.model_copy(
        update={
            modality: _section(kind, _found(told.get(modality), modality, root), where),
            "joint": _section(JointSettings, _found(told.get("joint"), "joint", root), where),
            "extract": settings.extract.model_copy(update={"tokens": tokens}),
            "seed": seed,
        }
    )


def apply_explicit_values(told: Settings, settings: Settings, modality: str, name: str) -> Settings:
    """Settings of `use_stored_encoder`, but for what a command's say otherwise of that encoder."""
    own = getattr(settings, modality)
    keys = own.model_fields_set if name == DEFAULT_ENCODER else ()
    section = {key: getattr(own, key) for key in keys}
    extract = {key: getattr(settings.extract, key) for key in settings.extract.model_fields_set}
    changes = {
        modality: getattr(told, modality).model_copy(update=section),
        "extract": told.extract.model_copy(update=extract),
        "seed": settings.seed,
    }
    return told.model_copy(update=changes)


def use_stored_encoders(
    settings: Settings, chosen: Mapping[tuple[str, str], StoredEncoder]
) -> Settings:
    """Settings that name the encoders of a store as it does."""
    for (modality, name), encoder in chosen.items():
        own = use_stored_encoder(settings, modality, encoder)
        if name == DEFAULT_ENCODER:
            settings = own.model_copy(update={"seed": settings.seed})
            continue
        sections = {modality: getattr(own, modality)}
        if own.joint.model is not None:
            sections["joint"] = own.joint
        there = settings.encoders.get(name)
        if there is not None:
            kept = {key: getattr(there, key) for key in (*MODALITIES, "joint")}
            sections = {**{k: v for k, v in kept.items() if v is not None}, **sections}
        encoders = {**settings.encoders, name: EncoderSettings(**sections)}
        settings = settings.model_copy(update={"encoders": encoders})
    return settings


def _section(kind: Any, values: object, where: Path) -> Any:
    message = f"{where} was told settings that are none:"
    return validate(kind, values or {}, message, "Run mmsa extract again.", DamagedCacheError)
