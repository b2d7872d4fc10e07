"""Settings of one command: flag > ``MMSA_*`` variable > ``mmsa.toml`` > default.

All mistakes in all places are collected and reported together.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.paths import expand_home, resolve_declared
from mmsa_cache.names import suggest_or_list

from .hub_copy import use_local_copy
from .project import caller_folder, find_project
from .sections import (
    CacheSettings,
    EncoderSettings,
    ImageSettings,
    JointSettings,
    Section,
    TextSettings,
)
from .settings import CONFIG_NAME, Settings
from .toml_file import read_toml

ENV_PREFIX = "MMSA_"
_PATHS = {("data", "root"), ("cache", "dir")}
"""Keys of paths; they are relative to the file that sets them, or to where a variable is read."""
_PATHS_IF_THERE = {("text", "model"), ("image", "weights"), ("joint", "model")}
"""Keys of paths or names; a value that is no existing path is a name."""


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    named: Mapping[str, str] | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Collects the settings from all places.

    Args:
        flags: ``"section.key"`` (or ``"key"``) → value; None: not given.
        named: Names of the flags in messages, by key.
        folder: Where ``mmsa.toml`` is; default: see `find_project` the working folder.
        environ: Environment variables; default: the process's.

    Raises:
        SettingsError: With all unknown keys and bad values.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}

    def put(path: tuple[str, ...], value: object, source: str) -> None:
        target = merged
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
        origin[path] = source

    if folder is None:
        folder = find_project(Path.cwd())
        if folder != Path.cwd():
            put(("cache", "dir"), folder / CacheSettings().dir, CONFIG_NAME)
    for path, value in _from_file(folder / CONFIG_NAME, problems):
        put(path, value, CONFIG_NAME)
    for path, value, name in _from_environment(environ, problems):
        put(path, value, name)
    for key, value in (flags or {}).items():
        if value is not None:
            put(tuple(key.split(".")), value, (named or {}).get(key, "flag"))

    settings = Settings()
    try:
        settings = Settings.model_validate(merged)
        cache = settings.cache.model_copy(update={"dir": resolve_declared(settings.cache.dir)})
        settings = settings.model_copy(
            update={"cache": cache, "data": use_local_copy(settings.data)}
        )
    except ValidationError as error:
        for item in error.errors():
            where = tuple(str(part) for part in item["loc"])
            source = next(
                (origin[where[:n]] for n in range(len(where), 0, -1) if where[:n] in origin),
                CONFIG_NAME,
            )
            problems.append(f"{source}: {'.'.join(where)}: {_explain(item, where)}")
    if problems:
        message = f"{len(problems)} setting(s) cannot be used."
        raise SettingsError(message, "Correct all of them.", problems)
    return settings


def _explain(item: Any, where: tuple[str, ...]) -> str:
    if where == ("storage",):
        return str(item["msg"])
    if item["type"] != "extra_forbidden":
        return f"{item['msg'].removeprefix('Value error, ')} (received {item['input']!r})"
    if where[0] == "encoders":  # encoders.NAME, then a section as those without a name
        section = {"text": TextSettings, "image": ImageSettings, "joint": JointSettings}
        model: Any = section[where[2]] if len(where) > 3 else EncoderSettings
    else:
        model = Settings
        for part in where[:-1]:
            model = model.model_fields[part].annotation
    return f"unknown key{suggest_or_list(where[-1], model.model_fields)}"


def _from_file(path: Path, problems: list[str]) -> list[tuple[tuple[str, ...], object]]:
    if not path.is_file():
        return []
    try:
        table = _resolve_paths(path.parent, "", read_toml(path))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{CONFIG_NAME}: not valid TOML: {error}")
        return []
    found: list[tuple[tuple[str, ...], object]] = []
    for section, content in table.items():
        if isinstance(content, dict) and content:
            found += [((section, key), value) for key, value in content.items()]
        else:
            found.append(((section,), content))
    return found


def _resolve_paths(folder: Path, section: str, table: dict[str, object]) -> dict[str, object]:
    """A table with all its paths, also nested ones, resolved relative to a folder."""
    return {key: _resolve_path(folder, section, key, value) for key, value in table.items()}


def _resolve_path(folder: Path, section: str, key: str, value: object) -> object:
    if isinstance(value, dict):
        return _resolve_paths(folder, key, value)
    if (section, key) in _PATHS and isinstance(value, str):
        return value if value.startswith("hf://") else folder / expand_home(value)
    return _path_if_there(folder, value) if (section, key) in _PATHS_IF_THERE else value


def _path_if_there(folder: Path, value: object) -> object:
    """An existing path, relative to the folder; other values are unchanged."""
    if isinstance(value, str) and os.path.exists(folder / expand_home(value)):  # noqa: PTH110
        return str(folder / expand_home(value))  # (Path.exists raises for names that are too long)
    return value


def setting_keys() -> dict[str, tuple[str, ...]]:
    """``{"text_model": ("text", "model"), "seed": ("seed",), …}``: keys by the names of variables
    and arguments."""
    known: dict[str, tuple[str, ...]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            known |= {f"{name}_{key}": (name, key) for key in field.annotation.model_fields}
        elif name != "encoders":
            known[name] = (name,)
    return known


def _from_environment(
    environ: Mapping[str, str], problems: list[str]
) -> list[tuple[tuple[str, ...], object, str]]:
    known = {f"{ENV_PREFIX}{name}".upper(): path for name, path in setting_keys().items()}
    found: list[tuple[tuple[str, ...], object, str]] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX):
            continue
        if name not in known:
            problems.append(f"{name}: unknown variable{suggest_or_list(name, known)}")
            continue
        value: object = text
        if name.endswith(("_KWARGS", "_MEAN", "_STD")):
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except (ValueError, RecursionError):
                problems.append(f"{name}: write the value as in TOML, received {text!r}")
                continue
        *section, key = known[name]
        found.append(
            (known[name], _resolve_path(caller_folder(), ".".join(section), key, value), name)
        )
    return found
