"""``mmsa ablate`` and ``mmsa ablate report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result
from mmsa_cache.files.results import check_outputs

from .options import Address, Engine, Force, Workers
from .output import say_notes
from .verb import Call, verb

app = typer.Typer(help="Train every combination of some axes; one table.")

Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of every setting; repeatable.")
]
Stop = Annotated[
    str,
    typer.Option(
        help="Rows that choose the epoch: held-out, or judged (the report's way, optimistic)."
    ),
]


@app.callback(invoke_without_command=True)
@verb("data", "cache", "device", "seed", "allow_outside")
def ablate(
    call: Call,
    context: typer.Context,
    axis: Annotated[
        list[str] | None,
        typer.Option("--axis", help="KEY=VALUE,VALUE of the setting; repeatable.", metavar="AXIS"),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="A study whose lists are axes and whose fixed values hold.")
    ] = None,
    assignments: Assignments = None,
    outer: Annotated[
        str | None,
        typer.Option(
            help="Rows that judge: report (default), val, report-parity, grouped, grouped-5 …"
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Folds, a training each; default 5, or the study's.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings a fold; default 1, or the study's.")
    ] = None,
    stop: Stop = "held-out",
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="FILE.csv, .md or .json; repeatable.")
    ] = None,
    force: Force = False,
) -> None:
    """Train every combination of some axes, and say what each is worth."""
    if context.invoked_subcommand is not None:
        return
    from mmsa_cache.compose.ablate.ablate import AblationRequest
    from mmsa_cache.compose.ablate.ablate import ablate as ablate_axes
    from mmsa_cache.compose.ablate.table import format_ablation
    from mmsa_cache.compose.extraction.crew import EngineRequest
    from mmsa_cache.compose.session.session import Session

    request = AblationRequest(
        axes=axis or [],
        study=study,
        assignments=assignments or [],
        outer=outer,
        folds=folds,
        seeds=seeds,
        stop=stop,
        engine=EngineRequest(engine, workers, address),
        out=out or [],
    )
    check_outputs(*request.out, force=force)
    record = ablate_axes(Session(call.settings()), request)
    if call.print_json(record.as_json()):
        return
    print_result(format_ablation(record))
    say_notes(record.notes)


@app.command("report")
@verb("data", "cache", "device", "seed", "allow_outside")
def ablate_report(
    call: Call,
    assignments: Assignments = None,
    outer: Annotated[
        str, typer.Option(help="Rows that judge; report-parity is the report's own split.")
    ] = "report-parity",
    folds: Annotated[int, typer.Option(min=1, help="Folds, a training each.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings a fold.")] = 3,
    stop: Stop = "held-out",
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.md for the page; figure 3 goes beside it.")
    ] = None,
    force: Force = False,
) -> None:
    """The report's tables 1 and 2 and figure 3, its figures beside those of these encoders."""
    from mmsa_cache.compose.ablate.report import ParityRequest, report
    from mmsa_cache.compose.extraction.crew import EngineRequest
    from mmsa_cache.compose.session.session import Session

    crew = EngineRequest(engine, workers, address)
    request = ParityRequest(assignments or [], outer, folds, seeds, stop, crew, out)
    check_outputs(out, out.with_suffix(".svg") if out and out.suffix else None, force=force)
    record = report(Session(call.settings()), request)
    if not call.print_json(record.as_json()):
        print_result(record.page)
