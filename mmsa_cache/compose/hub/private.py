"""Removes paths of this machine from a store that is shared, and finds those of others."""

from __future__ import annotations

import re
from pathlib import PurePath

from pydantic import JsonValue

from mmsa_cache.data.stored_split import StoredSplit
from mmsa_cache.store.encoder import StoredEncoder

_MODEL_NAME = re.compile(r"(?:[\w-]+:)?[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?")
"""A name at a hub or in a library, as ``resnet18``, ``USER/MODEL`` or ``hf-hub:USER/MODEL``."""
_SECTIONS = ("text", "image", "joint")
_PATH_KEYS = ("model", "weights")


def shared_split(about: StoredSplit) -> StoredSplit:
    """The record of a split, without the folder of its data."""
    told = dict(about.told)
    data = told.get("data")
    if isinstance(data, dict):
        told["data"] = {key: value for key, value in data.items() if key != "root"}
    return about.model_copy(update={"told": told})


def shared_encoder(encoder: StoredEncoder) -> StoredEncoder:
    """The record of an encoder, with paths cut to file names."""
    told = dict(encoder.told)
    for section in _SECTIONS:
        values = told.get(section)
        if isinstance(values, dict):
            told[section] = {
                key: _file_name(value) if key in _PATH_KEYS else value
                for key, value in values.items()
            }
    return encoder.model_copy(update={"told": told})


def foreign_paths(told: dict[str, JsonValue]) -> list[str]:
    """Descriptions of the paths of another machine in a shared record."""
    paths = []
    data = told.get("data")
    if isinstance(data, dict) and data.get("root") is not None:
        paths.append(f"the data folder {str(data['root'])[:100]!r}")
    for section in _SECTIONS:
        values = told.get(section)
        for key in _PATH_KEYS if isinstance(values, dict) else ():
            value = values.get(key) if isinstance(values, dict) else None
            if isinstance(value, str) and _file_name(value) != value:
                paths.append(f"{section}.{key} {value[:100]!r}")
    return paths


def _file_name(value: JsonValue) -> JsonValue:
    """The name of a model or a file; a path is cut to its last part."""
    if not isinstance(value, str) or _MODEL_NAME.fullmatch(value):
        return value
    return PurePath(value.replace("\\", "/")).name or "model"
