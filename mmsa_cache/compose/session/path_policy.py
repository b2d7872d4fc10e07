"""Which paths may be used that come from a file: a run, an export or a store."""

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
from mmsa_cache.files.paths import resolve_declared

ENCODER_PATHS = (("text", "model"), ("image", "weights"), ("joint", "model"))
"""Sections and keys of settings that may name files of encoders."""
DATA_HINT = "name it in mmsa.toml, give --data DIR, or --allow-outside"
"""How to make data outside usable."""
STORE_HINT = "name it in mmsa.toml, give --cache DIR, or --allow-outside"
"""How to make features outside usable."""
_HINT = "name it in mmsa.toml, or give --allow-outside"


@dataclass(frozen=True, slots=True)
class RunOverrides:
    """What a command sets in place of the settings of a run."""

    data: Path | None = None
    """Folder of the posts."""
    cache: Path | None = None
    """Folder of their features."""
    device: str | None = None
    """Device of the model; default: that of training."""
    allow_outside: bool = False
    """Whether folders that the run names are used wherever they are."""
    online: bool = False
    """Whether a missing model and missing encoders are downloaded from the hub."""


NO_OVERRIDES = RunOverrides()


class PathPolicy:
    """Decides which of the paths in a file may be used; links are resolved first.

    Allowed are paths inside the working folder, inside the folder that holds the file and inside
    what the user's own settings name; with ``allow_outside`` all paths are.

    Args:
        own: The user's settings: flags, variables and ``mmsa.toml``.
        home: The folder of the run, the export or the store that names the paths.
    """

    def __init__(self, own: Settings, home: Path) -> None:
        self.own = own
        self._folders = [Path.cwd(), *(path.resolve() for path in (home, *_existing_paths(own)))]
        self._noted: set[Path] = set()

    @classmethod
    def for_run(cls, folder: Path, overrides: RunOverrides) -> PathPolicy:
        """The policy for a run or an export: the user's settings are those of the working folder.

        Args:
            folder: The run or the export.
            overrides: Count as settings of the user.
        """
        own = Settings()
        with contextlib.suppress(SettingsError):
            own = load_settings()
        changes: dict[str, object] = {"allow_outside": overrides.allow_outside or own.allow_outside}
        if overrides.data is not None:
            changes["data"] = own.data.model_copy(update={"root": overrides.data})
        if overrides.cache is not None:
            changes["cache"] = own.cache.model_copy(
                update={"dir": resolve_declared(overrides.cache)}
            )
        own = own.model_copy(update=changes)
        return cls(own, folder)

    def allows(self, path: Path) -> bool:
        """Whether a path may be used."""
        try:
            resolved = path.resolve()
            resolved.exists()
        except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle, a NUL
            return False
        inside = any(resolved.is_relative_to(folder) for folder in self._folders)
        return inside or self.own.allow_outside

    def allows_with_note(self, path: Path, what: str, hint: str = _HINT) -> bool:
        """Whether a path may be used; if it exists and may not, the user is told once.

        Args:
            path: The path.
            what: What it is, as ``the run's data folder``.
            hint: How to make it usable.
        """
        allowed = self.allows(path)
        if not allowed and path not in self._noted and os.path.lexists(path):
            self._noted.add(path)
            say(f"Note: {_refusal(path, what)} To use it, {hint}.")
        return allowed

    def require(self, path: Path, what: str) -> None:
        """Raises an error for a path that may not be used.

        Raises:
            ModelError: The path may not be used.
        """
        if not self.allows(path):
            raise ModelError(_refusal(path, what), f"To use it, {_HINT}.")


def encoder_paths(settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields every value of dumped settings that may name a file of an encoder.

    Yields:
        The values of a section, and the key in it.
    """
    for group in (settings, *settings["encoders"].values()):
        for section, key in ENCODER_PATHS:
            if group[section] is not None and group[section][key] is not None:
                yield group[section], key


def _refusal(path: Path, what: str) -> str:
    return f"{what[0].upper()}{what[1:]} {path} is outside the working folder: not read."


def _existing_paths(settings: Settings) -> list[Path]:
    """Paths in settings that exist."""
    names: list[str | Path | None] = [settings.data.root, settings.cache.dir]
    for group in (settings, *settings.encoders.values()):
        for section, key in ENCODER_PATHS:
            names.append(getattr(getattr(group, section), key, None))
    paths = []
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            if name is not None and Path(name).exists():
                paths.append(Path(name))
    return paths
