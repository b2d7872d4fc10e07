"""``mmsa check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result, say
from mmsa_cache.data.layouts.listing import REPAIR_HINT
from mmsa_cache.errors import DataError, SettingsError
from mmsa_cache.files.results import check_outputs

from .options import Force
from .verb import Call, verb


@verb("data", "encoding", "column", "allow_empty_text", "missing", "text_model", "joint_model")
def check(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(help="The data folder; default: mmsa.toml's.", metavar="DATA")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of the worst.", metavar="PAGE")
    ] = None,
    force: Force = False,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Read label files and tables only: open no picture.")
    ] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Fetch hf://datasets/NAME, if it is not here.")
    ] = False,
) -> None:
    """List everything that is wrong with the data.

    It also says what the data is like; the exit code is 3 if something is bad.

    \b
    $ mmsa check
    $ mmsa check posts --html check.html
    """
    from mmsa_cache.compose.check.check import check as check_data
    from mmsa_cache.compose.check.format import format_check
    from mmsa_cache.compose.hub.data_set import fetch_data

    if folder is not None and call.flags["data"] is not None:
        raise SettingsError("The data folder is given twice.", "Leave --data out.")
    settings = call.settings() if folder is None else call.settings(data=folder)
    check_outputs(html, force=force)
    settings = fetch_data(settings) if online else settings
    found = check_data(settings, html, files=not no_files)
    if not call.print_json(found.as_json()):
        print_result(format_check(found))
    if html is not None:
        say(f"Page: {html}")
    if not found.ok:
        raise DataError(f"{len(found.problems)} problem(s) in {found.data}.", REPAIR_HINT)
