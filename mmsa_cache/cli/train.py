"""``mmsa train``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, print_result, say

from .options import ENCODERS, Track
from .output import say_notes, show_table
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.figures.records import Metric, RunFigures


@verb(*ENCODERS, "seed", "storage")
def train(
    call: Call,
    study: Annotated[
        list[str] | None,
        typer.Option(help="best, NAME or NAME:TRIAL; repeated: the average of several."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the setting; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    folds: Annotated[
        int, typer.Option(min=1, help="Folds; a member each, stopped on its own fold.")
    ] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Members a fold.")] = 1,
    ensemble: Annotated[
        bool, typer.Option(help="Average the members, or keep the best of them.")
    ] = True,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="The folds only calibrate; the model learns from all their rows."
        ),
    ] = False,
    outer: Annotated[
        str | None,
        typer.Option(
            help="Rows that judge: report, report-parity, grouped, or a cross-validation: "
            "stratified-5, grouped-5."
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the model's parts and sizes; train nothing.")
    ] = False,
    track: Track = None,
) -> None:
    """Train one setting and write a run directory."""
    from mmsa_cache.compose.session import Session
    from mmsa_cache.compose.train import TrainRequest
    from mmsa_cache.compose.train import train as train_run

    request = TrainRequest(
        studies=study or [],
        assignments=assignments or [],
        name=name,
        outer=outer,
        folds=folds,
        seeds=seeds,
        averaged=ensemble,
        refit=refit,
        track=track or [],
    )
    session = Session(call.settings())
    if summary:
        from mmsa_cache.compose.model_summary import summary as summarise_models

        parts = [asdict(part) for part in summarise_models(session, request)]
        if not call.printed(parts):
            show_table(parts, ["part", "computes", "shape", "parameters"])
        return
    run = train_run(session, request)
    if call.printed(run.as_json()):
        return
    print_result(format_table(*_figures_table(run.figures)))
    say_notes(run.notes)
    say(f"Report: {run.directory}/report.html")


def _figures_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the scores of each set of rows, then the spreads of several values."""
    scores = {
        "outer": figures.outer,
        "outer, uncalibrated": figures.outer_uncalibrated,
        "inner": figures.inner,
        "inner, uncalibrated": figures.inner_uncalibrated,
    }
    rows = [
        [
            title,
            str(score.rows),
            f"{score.accuracy:.4f}",
            f"{score.macro_f1:.4f}",
            f"{-(score.neg_log_loss or 0.0):.4f}",
        ]
        for title, score in scores.items()
        if score is not None
    ]
    signs: dict[Metric, int] = {"accuracy": 1, "macro_f1": 1, "neg_log_loss": -1}
    for title, spread, count in (
        ("single members on outer", figures.spread, len(figures.members)),
        ("outer parts", figures.spread_parts, len(figures.parts)),
    ):
        if count > 1:
            cells = [
                f"{sign * spread[metric].mean:.4f} ± {spread[metric].deviation:.4f}"
                for metric, sign in signs.items()
            ]
            rows.append([f"{count} {title}", "", *cells])
    return ["rows of", "rows", "accuracy", "macro-F1", "log-loss"], rows
