"""``mmsa export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from mmsa_cache.console import say

from .options import RUN_HELP, RUN_SOURCES, Online, complete_run
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*RUN_SOURCES)
def export(
    call: Call,
    run: Annotated[str, typer.Argument(help=RUN_HELP, metavar="RUN", autocompletion=complete_run)],
    to: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Model repository of the hub.", metavar="USER/REPO")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="The model's, for its card, as mit.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Of its texts, for its card, as en; repeated.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="safetensors, or onnx: a checked graph besides.")
    ] = "safetensors",
    force: Annotated[bool, typer.Option("--force", help="Replace an export there.")] = False,
    online: Online = False,
) -> None:
    """Write a run with a model card, to use anywhere: as a folder, or to the Hugging Face hub.

    \b
    $ mmsa export best --to exports/mine
    """
    from mmsa_cache.compose.export.export import ExportRequest
    from mmsa_cache.compose.export.export import export as export_run

    written = export_run(
        ExportRequest(
            run=run,
            to=to,
            push=push,
            private=private,
            form=form,
            force=force,
            license=licence,
            languages=language or (),
            overrides=call.overrides(online=online),
        )
    )
    if call.print_json(written):
        return
    rows = [{"file": name, "size": decimal(size)} for name, size in written.files.items()]
    show_table(rows, ["file", "size"])
    say_notes(written.notes)
    where = f"hf://{written.repository} --online" if written.repository else f"{to}"
    say(f"Try it: mmsa predict --run {where} --text …")
