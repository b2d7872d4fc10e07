"""``mmsa export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from mmsa_cache.console import say

from .options import PLACES, RUN_HELP, complete_run
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*PLACES)
def export(
    call: Call,
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=complete_run)],
    to: Annotated[Path, typer.Option(help="Folder to make.")],
    form: Annotated[
        str, typer.Option("--format", help="safetensors, or onnx: a checked graph besides.")
    ] = "safetensors",
    force: Annotated[bool, typer.Option("--force", help="Replace an export there.")] = False,
    online: Annotated[
        bool,
        typer.Option("--online", help="Fetch encoders by their hub names, to check them."),
    ] = False,
) -> None:
    """Write a run as a folder with a model card, to use anywhere."""
    from mmsa_cache.compose.export.export import ExportRequest
    from mmsa_cache.compose.export.export import export as export_run

    written = export_run(ExportRequest(run, to, form, force, call.given(), online))
    if call.printed(written):
        return
    rows = [{"file": name, "size": decimal(size)} for name, size in written.files.items()]
    show_table(rows, ["file", "size"])
    say_notes(written.notes)
    say(f"Try it: mmsa predict --run {to} --text …")
