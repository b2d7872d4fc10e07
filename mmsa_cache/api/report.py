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
    """The report page of a run; a notebook shows it in a frame."""

    path: Path
    """The HTML file."""
    height: int = 800
    """Height of the frame in a notebook, in pixels."""

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
        """The page in a sandboxed frame, which keeps its styles apart and runs no scripts."""
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe sandbox style="{style}" srcdoc="{escape(self.html)}"></iframe>'
