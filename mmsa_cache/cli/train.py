"""``mmsa train``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, message_console, print_result, say

from .options import ENCODERS, Address, Decide, Engine, Track, Workers, complete_study
from .output import format_decisions, say_notes, show_table
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.figures.records import Metric, RunFigures
    from mmsa_cache.compose.train.train import TrainedRun


@verb(*ENCODERS, "seed", "storage")
def train(
    call: Call,
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="best, NAME or NAME:TRIAL; repeated: of all of them.",
            autocompletion=complete_study,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the setting; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Folds; a member each, stopped on its own fold. Default: the study's, or 5."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Members a fold. Default: the study's, or 1.")
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Average so many of the study's trials at most, picked on their held-out "
            "predictions. Default: 8, if that is better on rows that picked nothing.",
        ),
    ] = None,
    single: Annotated[
        bool, typer.Option("--single", help="One setting a study, no ensemble of its trials.")
    ] = False,
    max_mb: Annotated[
        int, typer.Option("--max-mb", min=1, help="Megabytes of an ensemble, for an outer part.")
    ] = 200,
    no_ensemble: Annotated[
        bool, typer.Option("--no-ensemble", help="Keep the best member of the folds alone.")
    ] = False,
    refit: Annotated[
        bool | None,
        typer.Option(
            help="The folds only calibrate; the model learns from all their rows. Default: of an "
            "ensemble of trials."
        ),
    ] = None,
    outer: Annotated[
        str | None,
        typer.Option(
            help="Rows that judge: report, val, report-parity, grouped, or a cross-validation: "
            "stratified-5, grouped-5. Default: the study's."
        ),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option(
            "--nested", help="Search and choose in each part of the cross-validation anew."
        ),
    ] = False,
    trials: Annotated[
        int, typer.Option(min=1, help="With --nested: finished trials of each search.")
    ] = 200,
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the model's parts and sizes; train nothing.")
    ] = False,
    decide: Decide = None,
    track: Track = None,
) -> None:
    """Train a setting, or an ensemble of a study's trials, as a run.

    \b
    $ mmsa train --study best
    $ mmsa train --set fusion=gated --set epochs=20 --name gated
    """
    from fuse.assignments import parse_assignments
    from mmsa_cache.compose.extraction.crew import EngineRequest
    from mmsa_cache.compose.session.session import Session
    from mmsa_cache.compose.train.request import TrainRequest
    from mmsa_cache.compose.train.train import train as train_run

    request = TrainRequest(
        studies=study or [],
        changes=parse_assignments(assignments or []),
        name=name,
        outer=outer,
        folds=folds,
        seeds=seeds,
        averaged=not no_ensemble,
        refit=refit,
        ensemble=ensemble,
        single=single or no_ensemble,
        max_mb=max_mb,
        nested=nested,
        trials=trials,
        engine=EngineRequest(engine, workers, address),
        decide=decide or "accuracy",
        track=track or [],
    )
    session = Session(call.settings())
    if summary:
        from mmsa_cache.compose.train.summary import summary as summarise_models

        parts = [asdict(part) for part in summarise_models(session, request)]
        if not call.print_json(parts):
            show_table(parts, ["part", "computes", "shape", "parameters"])
        return
    run = train_run(session, request)
    if call.print_json(run.as_json()):
        return
    print_result(format_table(*_figures_table(run.figures)))
    print_result(f"\n{format_decisions(run.figures.decisions, request.decide)}")
    null = run.figures.intervals.calibration_error_null if run.figures.intervals else None
    if null is not None:
        say(f"A calibrated model has an ECE of {null.low:.4f} … {null.high:.4f} on so many rows.")
    if run.figures.baselines:
        print_result(f"\n{format_table(*_baselines_table(run.figures))}")
    _say_curves(run)
    say_notes(run.notes)
    say(f"Report: {run.directory}/report.html")


def _say_curves(run: TrainedRun) -> None:
    from mmsa_cache.compose.report.charts import learning_curves
    from mmsa_cache.runs.folder import RunFolder

    from .curves import curve_line

    line = curve_line(learning_curves(RunFolder(run.directory).history), message_console.encoding)
    if line:
        say(line)


def _baselines_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the model's decisions by the rule of each metric less the baselines'."""
    metrics = ("accuracy", "macro_f1", "neg_log_loss")
    header = [""]
    for title in ("accuracy", "macro-F1", "log-likelihood"):
        header += [title, "model − it", "95%"]
    rows = []
    for name, of in figures.baselines.items():
        cells = [name]
        for found in (of[metric] for metric in metrics):
            span = f"{found.interval.low:+.4f} … {found.interval.high:+.4f}"
            cells += [f"{found.baseline:.4f}", f"{found.choice - found.baseline:+.4f}", span]
        rows.append(cells)
    return header, rows


def _figures_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the scores of each set of rows, then the spreads of several values."""
    scores = {
        "outer": figures.outer,
        "outer, uncalibrated": figures.outer_uncalibrated,
        "inner": figures.inner,
        "inner, uncalibrated": figures.inner_uncalibrated,
        **{f"outer, {kind}": score for kind, score in figures.halves.items()},
    }
    rows = [
        [
            title,
            str(score.rows),
            f"{score.accuracy:.4f}",
            f"{score.macro_f1:.4f}",
            f"{0.0 - (score.neg_log_loss or 0.0):.4f}",
            f"{score.calibration_error or 0.0:.4f}",
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
            rows.append([f"{count} {title}", "", *cells, ""])
    return ["rows of", "rows", "accuracy", "macro-F1", "log-loss", "ECE"], rows
