"""``mmsa report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.results import claim

from .options import PLACES, RUN_HELP, Force, complete_run
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*PLACES, "device")
def report(
    call: Call,
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=complete_run)],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Show what another run's loss does to each class's recall; default: the latest "
            "run here that differs in the loss only.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the page; default: report.html of the run.")
    ] = None,
    force: Force = False,
) -> None:
    """Write a run's report again: one page that opens offline."""
    from mmsa_cache.compose.report.report import ReportRequest
    from mmsa_cache.compose.report.report import report as write_report

    claim(out, force=force)
    written = write_report(ReportRequest(run, against, out, call.given()))
    if call.printed(written):
        return
    shown = asdict(written) | {"against": written.against or "–"}
    show_table([shown], ["run", "against", "bytes", "report"])
    say_notes(written.notes)
