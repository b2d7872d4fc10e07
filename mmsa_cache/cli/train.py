"""``mmsa train``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmsa_cache.console import say

from .options import ENCODERS, Track
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*ENCODERS, "seed")
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
    if summary:
        from mmsa_cache.compose.model_summary import summary as summarise_models

        rows = summarise_models(call.settings(), study or [], assignments or [])
        call.table(rows, ["part", "computes", "shape", "parameters"])
        return
    from mmsa_cache.compose.train import train as train_run

    record = train_run(
        call.settings(),
        study or [],
        name,
        folds,
        seeds=seeds,
        averaged=ensemble,
        refit=refit,
        outer=outer,
        assignments=assignments or [],
        track=track or [],
    )
    if call.printed(record):
        return
    show_table(_figure_rows(record), _FIGURES)
    say_notes(record["notes"])
    say(f"Report: {record['directory']}/report.html")


_FIGURES = ["rows of", "rows", "accuracy", "macro-F1", "log-loss"]


def _figure_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What `train` returned, a line a set of rows, with the columns `_FIGURES`."""
    rows = [
        {
            "rows of": title,
            "rows": str(record[key]["rows"]),
            "accuracy": f"{record[key]['accuracy']:.4f}",
            "macro-F1": f"{record[key]['macro_f1']:.4f}",
            "log-loss": f"{-record[key]['neg_log_loss']:.4f}",
        }
        for key, title in (
            ("outer", "outer"),
            ("outer_uncalibrated", "outer, uncalibrated"),
            ("inner", "inner"),
            ("inner_uncalibrated", "inner, uncalibrated"),
        )
    ]
    for key, title, count in (
        ("spread", "single members on outer", len(record["members"])),
        ("spread_parts", "outer parts", len(record["parts"])),
    ):
        if count > 1:
            of = record[key]
            rows.append(
                {
                    "rows of": f"{count} {title}",
                    "rows": "",
                    **{
                        name: f"{sign * of[m]['mean']:.4f} ± {of[m]['deviation']:.4f}"
                        for name, m, sign in (
                            ("accuracy", "accuracy", 1),
                            ("macro-F1", "macro_f1", 1),
                            ("log-loss", "neg_log_loss", -1),
                        )
                    },
                }
            )
    return rows
