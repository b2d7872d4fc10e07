"""Local copies of data sets of the Hugging Face hub, ``hf://datasets/NAME[@REVISION]``.

They lie in the cache of the hub's client. A note beside a snapshot says that it is complete, and
which commit a revision was. Without the note nothing is read; the hub is never contacted here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.files.untrusted import read_regular

from .hub_name import HUB_NAME, PREFIX
from .sections import DataSettings

_SHA = re.compile(r"[0-9a-f]{40}")
_NOTES = "mmsa"
_SLASH = 2 * "-"
"""Replaces a slash in the client's folder names."""


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set of the hub."""

    repository: str
    revision: str

    @classmethod
    def of(cls, name: str) -> HubData:
        """Parses ``NAME[@REVISION]``.

        Raises:
            SettingsError: It is malformed.
        """
        match = HUB_NAME.fullmatch(name)
        if match is None:
            raise SettingsError(
                f"{PREFIX + name[:200]} names no data set.", f"Write {PREFIX}USER/NAME[@REVISION]."
            )
        return cls(match[1], match[2] or "main")

    @property
    def address(self) -> str:
        """The address as users write it."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{at}"

    @property
    def _folder(self) -> Path:
        return _cache() / f"datasets--{self.repository.replace('/', _SLASH)}"

    def copy(self) -> Path | None:
        """The folder of its files, if the copy is complete."""
        try:
            sha = read_regular(self._note(self.revision), 100).decode()
        except (OSError, ValueError):
            return None
        snapshot = self._folder / "snapshots" / sha
        return snapshot if _SHA.fullmatch(sha) and snapshot.is_dir() else None

    def fetched(self, snapshot: Path) -> None:
        """Notes that a snapshot is complete."""
        for name in {self.revision, snapshot.name}:
            make_folders(self._note(name).parent)
            write_atomically(self._note(name), snapshot.name.encode())

    def _note(self, revision: str) -> Path:
        return self._folder / _NOTES / revision.replace("/", _SLASH)


def use_local_copy(data: DataSettings) -> DataSettings:
    """Replaces a data set of the hub by its local copy, if there is one.

    Its files are links into the same cache.
    """
    copy = None if data.hub_name is None else HubData.of(data.hub_name).copy()
    return data if copy is None else data.model_copy(update={"root": copy, "follow_links": True})


def hub_address(root: Path) -> str | None:
    """``hf://datasets/NAME@COMMIT`` of a local copy; None for other folders.

    Args:
        root: The folder, resolved.
    """
    if len(root.parents) < 3:
        return None
    sha, kind, folder, cache = root, *root.parents[:3]
    name = folder.name.removeprefix("datasets--")
    if kind.name != "snapshots" or name == folder.name or cache != _cache().resolve():
        return None
    return f"{PREFIX}{name.replace(_SLASH, '/')}@{sha.name}"


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)
