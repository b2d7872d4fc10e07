"""Selects the features of a store that the settings of a command describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.sections import JointSettings
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import CacheNotFoundError, SettingsError
from mmsa_cache.files.hashing import digest
from mmsa_cache.names import DEFAULT_ENCODER
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import MAY_DIFFER, EncoderIdentity

from .store import Store

_FLAGS = {"text": "--text-model", "image": "--image-model"}
_SOURCES = ("model", "weights")
"""Keys that name files or a repository of a hub."""
Completeness = Callable[[StoredEncoder], float]
"""Encoder → share of the needed rows that its features hold."""


def select_encoder(
    settings: Settings,
    encoders: Sequence[StoredEncoder],
    modality: str,
    name: str,
    completeness: Completeness,
    *,
    trained_on: EncoderIdentity | None = None,
) -> StoredEncoder | None:
    """The encoder of a store that settings describe.

    Complete features are preferred, then features of more rows, whatever their precision.

    Args:
        settings: Values that are not set match any encoder.
        encoders: The encoders of the modality in the store.
        modality: ``text`` or ``image``.
        name: The encoder's name in the settings.
        completeness: Share of the needed rows that an encoder's features hold.
        trained_on: The encoder of a model: no other one matches.

    Returns:
        None where no encoder matches.

    Raises:
        SettingsError: Several match; lists them with the flag to choose.
    """
    if trained_on is not None:
        matches = [e for e in encoders if not e.identity.changes_since(trained_on)]
    else:
        conditions = _explicit(settings, modality, name)
        matches = [
            encoder
            for encoder in encoders
            if (conditions or name in encoder.names) and _matches(encoder, modality, conditions)
        ]
    matches = [encoder for encoder in matches if completeness(encoder) == 1.0] or matches
    distinct = {_digest_without_precision(encoder): encoder for encoder in matches}
    if len(distinct) > 1:
        flag = _FLAGS[modality] if name == DEFAULT_ENCODER else f"[encoders.{name}]"
        labels = [f"{e.identity.label} ({_details(e, matches)})" for e in distinct.values()]
        raise SettingsError(
            f"The store holds {len(distinct)} {modality} encoders that fit.",
            f"Choose with {flag}, or with the keys in which they differ.",
            labels,
        )
    return max(matches, key=completeness, default=None)


def missing_encoder_error(
    settings: Settings, store: Store, modality: str, name: str
) -> CacheNotFoundError:
    """The error for settings that match no encoder of a store.

    Raises:
        SettingsError: Neither the settings nor the store have an encoder of that name.
    """
    encoders = store.encoders(modality)
    if not any(name in encoder.names for encoder in encoders):
        settings.with_encoder(modality, name)
    what, hint = f"encoder {name!r}", f"Run mmsa extract{_encoders_flag(name)}."
    if not encoders:
        return CacheNotFoundError(f"There are no {modality} features in {store.root}.", hint)
    if name == DEFAULT_ENCODER:
        what, hint = "encoder that is set", "Run mmsa extract, or leave out what contradicts it."
    return CacheNotFoundError(
        f"{store.root} holds no features of the {modality} {what}.",
        hint,
        [_contradiction(settings, encoder, modality, name) for encoder in encoders],
    )


def missing_rows_hint(encoder: EncoderIdentity, split: str, name: str) -> str:
    """How to complete the features of an encoder for a split, or for ``all``."""
    if encoder.imported:
        return "Run mmsa cache import with the features of all rows."
    return f"Run mmsa extract --split {split}{_encoders_flag(name)}: it computes what is missing."


def _encoders_flag(name: str) -> str:
    return "" if name == DEFAULT_ENCODER else f" --encoders {name}"


def _contradiction(settings: Settings, encoder: StoredEncoder, modality: str, name: str) -> str:
    conditions = _explicit(settings, modality, name)
    differ = [
        f"[{section}] {key}: {value!r} is set, the store has {stored!r}"
        for (section, key), value in conditions.items()
        if not _equal(key, value, stored := _stored_value(encoder, section, key, value))
    ]
    called = f"it is called {', '.join(encoder.names)} there"
    return f"it holds {encoder.identity.label}; {'; '.join(differ) or called}"


def names_encoder(settings: Settings, modality: str, name: str) -> bool:
    """Whether settings set the model or the weights of an encoder."""
    keys = {key for _, key in _explicit(settings, modality, name)}
    return bool(keys & {"model", "weights"})


def _explicit(settings: Settings, modality: str, name: str) -> dict[tuple[str, str], Any]:
    """What settings set of an encoder: (section, key) → value."""
    if name == DEFAULT_ENCODER:
        own = getattr(settings, modality)
        joint: JointSettings | None = settings.joint
    elif name in settings.encoders:
        named = settings.encoders[name]
        own, joint = getattr(named, modality), named.joint
    else:
        return {}
    is_joint = joint is not None and joint.model is not None
    sections: list[tuple[str, Any, set[str]]] = []
    if own is not None:
        keys = own.model_fields_set - ({*_SOURCES, "kwargs"} if is_joint else set())
        sections.append((modality, own, keys))
    if joint is not None and is_joint:
        sections.append(("joint", joint, joint.model_fields_set))
    extract = settings.extract
    keys = extract.model_fields_set & {"tokens", "compute"}
    sections.append(
        ("extract", extract, keys - ({"compute"} if extract.compute == "auto" else set()))
    )
    values = {
        (section, key): value
        for section, content, keys in sections
        for key, value in sorted(content.model_dump(mode="json").items())
        if key in keys
    }
    if own is not None and not is_joint and any(key in _SOURCES for _, key in values):
        values["joint", "model"] = None
    return values


def _matches(
    encoder: StoredEncoder, modality: str, conditions: Mapping[tuple[str, str], Any]
) -> bool:
    """Whether an encoder has the values; of an imported one only the model's name is known."""
    if encoder.identity.imported:
        if (modality, "weights") in conditions and (modality, "model") not in conditions:
            return False  # they are weights of the default model
        conditions = {
            (section, key): value
            for (section, key), value in conditions.items()
            if key in ("model", "tokens")
        }
    return all(
        _equal(key, value, _stored_value(encoder, section, key, value))
        for (section, key), value in conditions.items()
    )


def _stored_value(encoder: StoredEncoder, section: str, key: str, value: Any) -> Any:
    """What an encoder has under a key that is set to a value."""
    fields = encoder.identity.fields
    if section == "extract":
        stored = fields.get(key)
        # Texts are kept whole where pictures are pooled.
        whole = key == "tokens" and encoder.identity.modality == "text" and value != "none"
        return value if whole and stored == "keep" else stored
    if key == "pool_layers" and isinstance(value, list):
        return fields.get(key, [])
    told = encoder.told.get(section)
    return told.get(key) if isinstance(told, dict) else None


def _equal(key: str, value: Any, stored: Any) -> bool:
    if key in _SOURCES and isinstance(value, str) and isinstance(stored, str):
        return Path(value).name == Path(stored).name
    return bool(stored == value)


def is_same_encoder(one: StoredEncoder, other: StoredEncoder) -> bool:
    """Whether two encoders differ in their precision at most."""
    return _digest_without_precision(one) == _digest_without_precision(other)


def _digest_without_precision(encoder: StoredEncoder) -> str:
    """The same for one encoder in all precisions."""
    fields = encoder.identity.fields
    return digest({key: value for key, value in fields.items() if key not in MAY_DIFFER})


def _details(encoder: StoredEncoder, others: Sequence[StoredEncoder]) -> str:
    """The fields in which an encoder differs from others."""
    every: list[Fields] = [other.identity.fields for other in others]
    own = encoder.identity.fields
    keys = [k for k in sorted(own) if any(fields.get(k) != own[k] for fields in every)]
    return ", ".join(f"{key} {str(own[key])[:40]}" for key in keys if key not in ("encoder",))
