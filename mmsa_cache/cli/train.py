"""``mmsa train``."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, message_console, print_result, say

from .options import ENCODERS, Address, Decide, Engine, Track, Workers, complete_study
from .output import format_decisions, format_interval, say_notes, show_table
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.figures.calibration import Decide as DecisionRule
    from fuse.figures.records import Metric, RunFigures
    from mmsa_cache.compose.train.train import TrainedRun


Studies = Annotated[
    list[str] | None,
    typer.Option(
        "--study",
        help="best, NAME or NAME:TRIAL; repeated: of all of them.",
        autocompletion=complete_study,
    ),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of the setting; repeatable.")
]
Name = Annotated[str | None, typer.Option(help="Name of the run.")]
Folds = Annotated[
    int | None,
    typer.Option(
        min=1, help="Folds; a member each, stopped on its own fold. Default: the study's, or 5."
    ),
]
Seeds = Annotated[
    int | None, typer.Option(min=1, help="Members a fold. Default: the study's, or 1.")
]
Ensemble = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Average so many of the study's trials at most, picked on their held-out "
        "predictions. Default: 8, if that is better on rows that picked nothing.",
    ),
]
Single = Annotated[
    bool, typer.Option("--single", help="One setting a study, no ensemble of its trials.")
]
MaxMb = Annotated[
    int, typer.Option("--max-mb", min=1, help="Megabytes of an ensemble, for an outer part.")
]
NoEnsemble = Annotated[
    bool, typer.Option("--no-ensemble", help="Keep the best member of the folds alone.")
]
Refit = Annotated[
    bool | None,
    typer.Option(
        help="The folds only calibrate; the model learns from all their rows. Default: if "
        "the model is an ensemble of trials, or solved to its optimum (lbfgs)."
    ),
]
Outer = Annotated[
    str | None,
    typer.Option(
        help="Rows that judge: report, val, report-parity, grouped, or a cross-validation: "
        "stratified-5, grouped-5. Default: the study's."
    ),
]
Nested = Annotated[
    bool,
    typer.Option("--nested", help="Search and choose in each part of the cross-validation anew."),
]
Trials = Annotated[int, typer.Option(min=1, help="With --nested: finished trials of each search.")]
Summary = Annotated[
    bool, typer.Option("--summary", help="Show the model's parts and sizes; train nothing.")
]


@verb(*ENCODERS, "seed", "storage")
def train(
    call: Call,
    study: Studies = None,
    assignments: Assignments = None,
    name: Name = None,
    folds: Folds = None,
    seeds: Seeds = None,
    ensemble: Ensemble = None,
    single: Single = False,
    max_mb: MaxMb = 200,
    no_ensemble: NoEnsemble = False,
    refit: Refit = None,
    outer: Outer = None,
    nested: Nested = False,
    trials: Trials = 200,
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    summary: Summary = False,
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
    from mmsa_cache.compose.train.summary import summary as summarise_models
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
        parts = [asdict(part) for part in summarise_models(session, request)]
        if not call.print_json(parts):
            show_table(parts, ["part", "computes", "shape", "parameters"])
        return
    run = train_run(session, request)
    if not call.print_json(run.as_json()):
        _show(run, request.decide)


def _show(run: TrainedRun, decide: DecisionRule) -> None:
    """Prints the scores, the decisions, the baselines and the notes of a run."""
    figures = run.figures
    print_result(format_table(*_scores_table(figures)))
    if len(figures.parts) > 1:
        print_result(f"\n{format_table(*_parts_table(figures))}")
    print_result(f"\n{format_decisions(figures.decisions, decide)}")
    null = figures.intervals.calibration_error_null if figures.intervals else None
    if null is not None:
        say(f"A calibrated model has an ECE of {null.low:.4f} … {null.high:.4f} on so many rows.")
    if figures.baselines:
        print_result(f"\n{format_table(*_baselines_table(figures))}")
    _say_curves(run)
    say_notes(run.notes)
    if Path(run.directory, "report.html").exists():
        say(f"Report: {run.directory}/report.html")


def _say_curves(run: TrainedRun) -> None:
    """Shows the mean learning curves of the members in one line."""
    from mmsa_cache.compose.report.charts import learning_curves
    from mmsa_cache.runs.folder import RunFolder

    from .curves import curve_line

    line = curve_line(learning_curves(RunFolder(run.directory).history), message_console.encoding)
    if line:
        say(line)


def _baselines_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each baseline's scores, and how much better the model is.

    The model's score of a metric is that of the decision rule for the metric.
    """
    titles: dict[Metric, str] = {
        "accuracy": "accuracy",
        "macro_f1": "macro-F1",
        "neg_log_loss": "log-likelihood",
    }
    rows = []
    for name, comparison in figures.baselines.items():
        cells = [name]
        for metric in titles:
            paired = comparison[metric]
            gain = f"{paired.choice - paired.baseline:+.4f}"
            cells += [f"{paired.baseline:.4f}", gain, format_interval(paired.interval, "+")]
        rows.append(cells)
    columns = [[title, "model − it", "95%"] for title in titles.values()]
    return ["", *itertools.chain(*columns)], rows


def _parts_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the scores of each outer part, calibrated and not."""
    rows = []
    for number, part in enumerate(figures.parts, start=1):
        cells = [str(number), str(part.rows), f"{part.accuracy:.4f}", f"{part.macro_f1:.4f}"]
        for values in (part, part.uncalibrated):
            loss = None if values is None else values.neg_log_loss
            error = None if values is None else values.calibration_error
            cells += ["–" if loss is None else f"{-loss:.4f}"]
            cells += ["–" if error is None else f"{error:.4f}"]
        rows.append(cells)
    columns = ["outer part", "rows", "accuracy", "macro-F1", "log-loss", "ECE"]
    return [*columns, "uncalibrated: log-loss", "ECE"], rows


def _scores_table(figures: RunFigures) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the scores of each set of rows, then mean and deviation of several."""
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
