"""Which of a store's features a command means."""

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

_FLAGS = {"text": "--text-model", "image": "--image-model"}
_PLACES = ("model", "weights")
"""Keys that name files, or something of a hub."""
Share = Callable[[StoredEncoder], float]
"""Share of the wanted rows that an encoder's features hold."""


def select(
    settings: Settings,
    encoders: Sequence[StoredEncoder],
    modality: str,
    name: str,
    share: Share,
    *,
    trained_on: EncoderIdentity | None = None,
) -> StoredEncoder | None:
    """The encoder of a store that settings mean.

    Complete features come before started ones, and those before the precision of this machine.

    Args:
        settings: What they do not say, any encoder fits.
        encoders: Those of the modality in the store.
        modality: ``text`` or ``image``.
        name: The encoder's name in the settings.
        share: Of the rows that are wanted.
        trained_on: The encoder of a model: no other one fits.

    Returns:
        None where no encoder fits.

    Raises:
        SettingsError: Several fit; lists them with the flag to choose.
    """
    if trained_on is not None:
        fitting = [e for e in encoders if not e.identity.changes_since(trained_on)]
    else:
        wanted = _explicit(settings, modality, name)
        fitting = [
            encoder
            for encoder in encoders
            if (wanted or name in encoder.names) and _fits(encoder, modality, wanted)
        ]
    complete = [encoder for encoder in fitting if share(encoder) == 1.0]
    found = complete or fitting
    kinds = {_kind(encoder): encoder for encoder in found}
    if len(kinds) > 1:
        flag = _FLAGS[modality] if name == DEFAULT_ENCODER else f"[encoders.{name}]"
        labels = [f"{e.identity.label} ({_details(e, found)})" for e in kinds.values()]
        raise SettingsError(
            f"The store holds {len(kinds)} {modality} encoders that fit.",
            f"Choose with {flag}, or with the keys in which they differ.",
            labels,
        )
    return max(found, key=share, default=None)


def missing(
    settings: Settings, encoders: Sequence[StoredEncoder], modality: str, name: str, root: Path
) -> CacheNotFoundError:
    """The error of settings that no encoder of a store fits.

    Raises:
        SettingsError: Nobody knows an encoder of that name.
    """
    known = [stored for encoder in encoders for stored in encoder.names]
    if name not in known:
        settings.with_encoder(modality, name)
    own = "" if name == DEFAULT_ENCODER else f" --encoders {name}"
    if not encoders:
        return CacheNotFoundError(
            f"There are no {modality} features in {root}.", f"Run mmsa extract{own}."
        )
    what, hint = f"encoder {name!r}", f"Run mmsa extract{own}."
    if name == DEFAULT_ENCODER:
        what, hint = "encoder that is set", "Run mmsa extract, or leave out what contradicts it."
    return CacheNotFoundError(
        f"{root} holds no features of the {modality} {what}.",
        hint,
        [_contradiction(settings, encoder, modality, name) for encoder in encoders],
    )


def _contradiction(settings: Settings, encoder: StoredEncoder, modality: str, name: str) -> str:
    wanted = _explicit(settings, modality, name)
    differ = [
        f"[{section}] {key}: {value!r} is set, the store has {have!r}"
        for (section, key), value in wanted.items()
        if not _equal(key, value, have := _stored(encoder, section, key, value))
    ]
    called = f"it is called {', '.join(encoder.names)} there"
    return f"it holds {encoder.identity.label}; {'; '.join(differ) or called}"


def is_named(settings: Settings, modality: str, name: str) -> bool:
    """Whether settings say which encoder of a modality is meant."""
    keys = {key for _, key in _explicit(settings, modality, name)}
    return bool(keys & {"model", "weights"})


def _explicit(settings: Settings, modality: str, name: str) -> dict[tuple[str, str], Any]:
    """What settings say of an encoder: (section, key) → value."""
    if name == DEFAULT_ENCODER:
        own = getattr(settings, modality)
        joint: JointSettings | None = settings.joint
    elif name in settings.encoders:
        found = settings.encoders[name]
        own, joint = getattr(found, modality), found.joint
    else:
        return {}
    is_joint = joint is not None and joint.model is not None
    sections: list[tuple[str, Any, set[str]]] = []
    if own is not None:
        keys = own.model_fields_set - ({*_PLACES, "kwargs"} if is_joint else set())
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
    if own is not None and not is_joint and any(key in _PLACES for _, key in values):
        values["joint", "model"] = None
    return values


def _fits(encoder: StoredEncoder, modality: str, wanted: Mapping[tuple[str, str], Any]) -> bool:
    """Whether an encoder has what is wanted; of an imported one only the model's name is known."""
    if encoder.identity.imported:
        if (modality, "weights") in wanted and (modality, "model") not in wanted:
            return False  # those of the model that is set or meant by default
        known = {"model", "tokens"}
        wanted = {place: value for place, value in wanted.items() if place[1] in known}
    return all(_has(encoder, *item) for item in wanted.items())


def _has(encoder: StoredEncoder, place: tuple[str, str], value: Any) -> bool:
    section, key = place
    return _equal(key, value, _stored(encoder, section, key, value))


def _stored(encoder: StoredEncoder, section: str, key: str, value: Any) -> Any:
    """What an encoder has of a key that is set to a value."""
    fields = encoder.identity.fields
    if section == "extract":
        have = fields.get(key)
        # Texts are kept whole where pictures are pooled.
        whole = key == "tokens" and encoder.identity.modality == "text" and value != "none"
        return value if whole and have == "keep" else have
    if key == "pool_layers" and isinstance(value, list):
        return fields.get(key, [])
    told = encoder.told.get(section)
    return told.get(key) if isinstance(told, dict) else None


def _equal(key: str, value: Any, have: Any) -> bool:
    if key in _PLACES and isinstance(value, str) and isinstance(have, str):
        return Path(value).name == Path(have).name
    return bool(have == value)


def is_same(one: StoredEncoder, other: StoredEncoder) -> bool:
    """Whether two are one encoder, perhaps in different precisions."""
    return _kind(one) == _kind(other)


def _kind(encoder: StoredEncoder) -> str:
    """The same for one encoder in several precisions."""
    fields = encoder.identity.fields
    return digest({key: value for key, value in fields.items() if key not in MAY_DIFFER})


def _details(encoder: StoredEncoder, others: Sequence[StoredEncoder]) -> str:
    """The fields in which an encoder differs from others."""
    every: list[Fields] = [other.identity.fields for other in others]
    own = encoder.identity.fields
    keys = [k for k in sorted(own) if any(fields.get(k) != own[k] for fields in every)]
    return ", ".join(f"{key} {str(own[key])[:40]}" for key in keys if key not in ("encoder",))
