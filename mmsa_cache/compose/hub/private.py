"""What a store that is shared does not tell: where files of its machine are."""

from __future__ import annotations

import re
from pathlib import PurePath

from pydantic import JsonValue

from mmsa_cache.data.stored import StoredSplit
from mmsa_cache.store.encoder import StoredEncoder

_MODEL = re.compile(r"(?:[\w-]+:)?[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?")
"""A name of a hub or of a library, as ``resnet18``, ``USER/MODEL`` or ``hf-hub:USER/MODEL``."""
_SECTIONS = ("text", "image", "joint")
_PLACES = ("model", "weights")


def shared_split(about: StoredSplit) -> StoredSplit:
    """What is known of a split, without the folder of its data."""
    told = dict(about.told)
    data = told.get("data")
    if isinstance(data, dict):
        told["data"] = {key: value for key, value in data.items() if key != "root"}
    return about.model_copy(update={"told": told})


def shared_encoder(encoder: StoredEncoder) -> StoredEncoder:
    """An encoder whose files are called by their last names."""
    told = dict(encoder.told)
    for section in _SECTIONS:
        values = told.get(section)
        if isinstance(values, dict):
            told[section] = {
                key: _last_name(value) if key in _PLACES else value for key, value in values.items()
            }
    return encoder.model_copy(update={"told": told})


def places_of(told: dict[str, JsonValue]) -> list[str]:
    """Places of another machine that a record from elsewhere names."""
    found = []
    data = told.get("data")
    if isinstance(data, dict) and data.get("root") is not None:
        found.append(f"the data folder {str(data['root'])[:100]!r}")
    for section in _SECTIONS:
        values = told.get(section)
        for key in _PLACES if isinstance(values, dict) else ():
            value = values.get(key) if isinstance(values, dict) else None
            if isinstance(value, str) and _last_name(value) != value:
                found.append(f"{section}.{key} {value[:100]!r}")
    return found


def _last_name(value: JsonValue) -> JsonValue:
    """A model's or a file's name; a path is cut to its last part."""
    if not isinstance(value, str) or _MODEL.fullmatch(value):
        return value
    return PurePath(value.replace("\\", "/")).name or "model"
