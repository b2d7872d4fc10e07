"""``mmsa report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.errors import SettingsError
from mmsa_cache.files.results import check_outputs

from .options import RUN_HELP, RUN_SOURCES, Force, complete_run
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*RUN_SOURCES, "device")
def report(
    call: Call,
    runs: Annotated[
        list[str],
        typer.Argument(
            help=f"{RUN_HELP} Several are compared.", metavar="RUN", autocompletion=complete_run
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Show what another run's loss does to each class's recall; default: the latest "
            "run here that differs in the loss only.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the page; default: report.html of the run, of several "
            "runs/comparison.html."
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the numbers of all tables and charts there."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a run's report again, or one that compares runs: a page that opens offline.

    \b
    $ mmsa report latest
    $ mmsa report latest best --out comparison.html
    """
    check_outputs(out, force=force)
    if len(runs) > 1:
        if against is not None:
            raise SettingsError(
                "--against is of the report of one run.", "Name one run, or leave it out."
            )
        _compare(call, runs, out, csv, force)
        return
    from mmsa_cache.compose.report.report import ReportRequest
    from mmsa_cache.compose.report.report import report as write_report

    written = write_report(ReportRequest(runs[0], against, out, call.overrides(), csv, force))
    if call.print_json(written):
        return
    shown = asdict(written) | {"against": written.against or "–"}
    show_table([shown], ["run", "against", "bytes", "report"])
    say_notes(written.notes)


def _compare(call: Call, runs: list[str], out: Path | None, csv: Path | None, force: bool) -> None:
    from mmsa_cache.compose.report.comparison import ComparisonRequest, report_comparison

    written = report_comparison(ComparisonRequest(runs, out, call.overrides(), csv, force))
    if call.print_json(written):
        return
    show_table([asdict(written)], ["runs", "rows", "bytes", "report"])
    say_notes(written.notes)
