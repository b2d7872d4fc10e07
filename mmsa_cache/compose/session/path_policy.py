"""Paths that the files of somebody name: a run, an export, a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.files.paths import declared

ENCODER_PATHS = (("text", "model"), ("image", "weights"), ("joint", "model"))
"""Sections and keys of encoders that may name files."""
DATA_HINT = "name it in mmsa.toml, give --data DIR, or --allow-outside"
"""What leads to the data."""
STORE_HINT = "name it in mmsa.toml, give --cache DIR, or --allow-outside"
"""What leads to features."""
_CURE = "name it in mmsa.toml, or give --allow-outside"


@dataclass(frozen=True, slots=True)
class RunOverrides:
    """What a command says of a run's places, in the place of what the run says."""

    data: Path | None = None
    """Where the posts are now."""
    cache: Path | None = None
    """Where their features are now."""
    device: str | None = None
    """Where the model runs; default: as it was trained."""
    allow_outside: bool = False
    """Whether folders that the run names are used wherever they are."""
    online: bool = False
    """Whether a model and encoders that are not here are fetched from the hub."""


NO_OVERRIDES = RunOverrides()


class PathPolicy:
    """Where paths that a file names may lead; links count by what they lead to.

    That is the working folder, the folder that holds the file, what the user's own settings name,
    and with ``allow_outside`` everything.

    Args:
        own: The user's settings: of flags, variables and ``mmsa.toml``.
        home: The folder of the run, the export or the store that names the paths.
    """

    def __init__(self, own: Settings, home: Path) -> None:
        self.own = own
        self._folders = [Path.cwd(), *(path.resolve() for path in (home, *_named(own)))]
        self._said: set[Path] = set()

    @classmethod
    def for_run(cls, folder: Path, overrides: RunOverrides) -> PathPolicy:
        """That of a run or an export: the user's settings are those of the working folder."""
        own = Settings()
        with contextlib.suppress(SettingsError):
            own = load_settings()
        changes: dict[str, object] = {"allow_outside": overrides.allow_outside or own.allow_outside}
        if overrides.data is not None:
            changes["data"] = own.data.model_copy(update={"root": overrides.data})
        if overrides.cache is not None:
            changes["cache"] = own.cache.model_copy(update={"dir": declared(overrides.cache)})
        own = own.model_copy(update=changes)
        return cls(own, folder)

    def allows(self, path: Path) -> bool:
        """Whether a path may be used."""
        try:
            found = path.resolve()
            found.exists()
        except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a NUL
            return False
        inside = any(found.is_relative_to(folder) for folder in self._folders)
        return inside or self.own.allow_outside

    def allows_with_note(self, path: Path, what: str, cure: str = _CURE) -> bool:
        """Whether a path may be used; one note says what is there and is not.

        Args:
            path: The path.
            what: What it is, as ``the run's data folder``.
            cure: What leads to it.
        """
        found = self.allows(path)
        if not found and path not in self._said and os.path.lexists(path):
            self._said.add(path)
            say(f"Note: {_refusal(path, what)} To use it, {cure}.")
        return found

    def require(self, path: Path, what: str) -> None:
        """Refuses a path that may not be used.

        Raises:
            ModelError: It may not.
        """
        if not self.allows(path):
            raise ModelError(_refusal(path, what), f"To use it, {_CURE}.")


def encoder_paths(settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where plain values of settings may name files of encoders: a section's values, and a key."""
    for group in (settings, *settings["encoders"].values()):
        for section, key in ENCODER_PATHS:
            if group[section] is not None and group[section][key] is not None:
                yield group[section], key


def _refusal(path: Path, what: str) -> str:
    return f"{what[0].upper()}{what[1:]} {path} is outside the working folder: not read."


def _named(settings: Settings) -> list[Path]:
    """The paths of settings: folders and files there are."""
    names: list[str | Path | None] = [settings.data.root, settings.cache.dir]
    for group in (settings, *settings.encoders.values()):
        for section, key in ENCODER_PATHS:
            names.append(getattr(getattr(group, section), key, None))
    found = []
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            if name is not None and Path(name).exists():
                found.append(Path(name))
    return found
