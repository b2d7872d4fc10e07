"""The report of a run, as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from mmsa_cache.errors import ModelError
from mmsa_cache.files.untrusted import read_regular

_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """A page that a run wrote; in a notebook it shows itself."""

    path: Path
    """Its file, to open in a browser."""
    height: int = 800
    """Of its frame in a notebook, in pixels."""

    @property
    def html(self) -> str:
        """The page.

        Raises:
            ModelError: It cannot be read.
        """
        try:
            return read_regular(self.path, _MOST_BYTES).decode()
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{self.path} cannot be read: {error}.", "Write it: mmsa report NAME."
            ) from error

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its styles stay there, and nothing in it may run."""
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe sandbox style="{style}" srcdoc="{escape(self.html)}"></iframe>'
