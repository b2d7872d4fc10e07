"""``mmsa.check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.compose.check.check import check as look_at
from mmsa_cache.compose.check.format import format_check
from mmsa_cache.compose.check.summary import DataSummary
from mmsa_cache.data.inspection import Problem
from mmsa_cache.escaping import escape_controls

from .calls import work_in_project
from .opening import resolve_settings


class DataCheck:
    """A summary of data with all its problems; its repr is the output of ``mmsa check``."""

    def __init__(self, summary: DataSummary) -> None:
        self.summary = summary

    @property
    def ok(self) -> bool:
        """Whether nothing is bad."""
        return self.summary.ok

    @property
    def problems(self) -> Sequence[Problem]:
        """All problems, with file and line."""
        return self.summary.problems

    def __repr__(self) -> str:
        return escape_controls(format_check(self.summary))


def check(data: str | Path | None = None, *, files: bool = True, **settings: object) -> DataCheck:
    """Checks every file of the data and reports all problems: ``check("posts").ok``.

    Args:
        data: Folder or table of the posts; default: that of ``mmsa.toml``.
        files: Whether texts and pictures are opened; else only label files and tables are read.
        settings: See `open`.

    Raises:
        SettingsError: There is no such data, or a setting cannot be used.
    """
    with work_in_project() as here:
        return DataCheck(look_at(resolve_settings(here, None, data, settings), files=files))
