"""``mmsa check``: problems and statistics of a data folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from extract.inputs.decode import read_picture
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import Advance, progress
from mmsa_cache.data.inspection import inspect
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.results import write_result

from .page import render
from .summary import DataSummary, summarise


def check(settings: Settings, page: Path | None = None, *, files: bool = True) -> DataSummary:
    """Inspects every file of the data.

    Args:
        settings: The command's settings.
        page: File for an HTML page with pictures of the worst rows.
        files: Whether texts and pictures are opened, not only label files and tables.

    Raises:
        SettingsError: No data folder is set, or the page cannot be written.
    """
    if settings.data.root is None:
        raise SettingsError(
            "No data folder is set.", "Run mmsa check DIR; mmsa init DIR sets it in an mmsa.toml."
        )
    if page is not None and not page.resolve().parent.is_dir():
        raise SettingsError(f"There is no folder {page.resolve().parent}.", "Make it first.")
    started = time.monotonic()
    with ExitStack() as stack:
        bar: Advance | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or stack.enter_context(progress("check", total, "pairs"))
            bar(done, "")

        inspection = inspect(settings.data, read_picture if files else None, advance)
    summary = summarise(inspection, settings)
    if page is not None:
        write_result(page, render(inspection, summary))
        summary = replace(summary, page=str(page))
    return replace(summary, seconds=round(time.monotonic() - started, 1))
