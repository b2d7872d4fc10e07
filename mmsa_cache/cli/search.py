"""``mmsa search``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, print_result, say

from .options import ENCODERS, Address, DryRun, Engine, Track, Workers, complete_study
from .output import format_interval, say_notes
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.figures.records import Metric
    from fuse.search.search import SearchResult


Trials = Annotated[int, typer.Option(min=1, help="Finished trials in all.")]
StudyFile = Annotated[
    str, typer.Option(help="Name of a study file.", autocompletion=complete_study)
]
Name = Annotated[
    str | None, typer.Option(help="Name of the study in the database; default: that of its file.")
]
Outer = Annotated[
    str | None,
    typer.Option(
        help="Rows that judge the choice, as val; the study is then NAME@val. Default: the "
        "study file's."
    ),
]
Select = Annotated[
    str, typer.Option(help="best, or one-se: the simplest within one standard error of it.")
]
ListStudies = Annotated[
    bool, typer.Option("--list", help="Show the studies: trials, best score, age.")
]
Dashboard = Annotated[
    bool, typer.Option("--dashboard", help="Show the study in a browser meanwhile; says where.")
]


@verb(*ENCODERS, "seed", "storage")
def search(
    call: Call,
    trials: Trials = 200,
    study: StudyFile = "default",
    name: Name = None,
    outer: Outer = None,
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    select: Select = "best",
    list_: ListStudies = False,
    track: Track = None,
    dashboard: Dashboard = False,
    dry_run: DryRun = False,
) -> None:
    """Search a study's space on the cached features.

    \b
    $ mmsa search --trials 200
    $ mmsa search --study pooled --trials 50 --dry-run
    """
    from mmsa_cache.compose.extraction.crew import EngineRequest
    from mmsa_cache.compose.search.search import SearchRequest
    from mmsa_cache.compose.search.search import search as run_study
    from mmsa_cache.compose.session.session import Session

    if list_:
        _list_studies(call)
        return
    request = SearchRequest(
        study,
        trials,
        EngineRequest(engine, workers, address),
        select,
        name,
        track=track or [],
        outer=outer,
        dashboard=dashboard,
    )
    if dry_run:
        from .dry_run import show_search

        show_search(call, request)
        return
    result = run_study(Session(call.settings()), request)
    if not call.print_json(result.model_dump(mode="json")):
        _show(result)
        say_notes(result.notes)


def _list_studies(call: Call) -> None:
    """Prints the studies of the database."""
    from mmsa_cache.compose.search.search import list_studies

    rows = [listed.model_dump() for listed in list_studies(call.settings())]
    for row in rows if not call.as_json else []:
        age = row["age_seconds"]
        row["age"] = "–" if age is None else f"{age / 3600:.1f} h"
        row["best"] = "–" if row["best"] is None else row["best"]
    columns = ["study", "finished", "complete", "pruned", "failed", "best", "age"]
    call.print_table(rows, columns)


_HEADERS = {"low": "5 %", "high": "95 %", "alpha": "α", "beta": "β"}


def _show(result: SearchResult) -> None:
    """Prints the chosen trial, the baselines, and what each parameter is worth."""
    low, high = result.optimism_interval
    choice = {
        "study": result.study,
        "trial": str(result.trial),
        "inner": f"{result.inner_score:.4f}",
        "outer": f"{result.outer_score:.4f}",
        "gap": f"{result.optimism_gap:.4f}",
        "95 %": f"{low:+.4f} … {high:+.4f}",
        "outer, together": f"{result.outer_score_together:.4f}",
    }
    trials = result.trials
    parts = [
        format_table([*choice], [[*choice.values()]]),
        f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed "
        f"trials; {result.metric}; {result.outer_rows} outer rows; "
        f"{result.seconds:.0f} s, {100 * result.overhead_share:.0f} % outside training.",
    ]
    if result.baselines:
        parts += ["", format_table(*_baselines_table(result))]
    for header, rows in (
        (["fusion", "trials", "complete", "score", "trial"], result.by_fusion),
        (["parameter", "median", "low", "high", "trials", "pruned"], result.importance),
        (["alpha", "beta", "trials", "mean", "best", "pruned"], result.alpha_beta),
    ):
        fields = ["value" if name == "fusion" else name for name in header]
        cells = [[_cell(getattr(row, field)) for field in fields] for row in rows]
        if cells:
            parts += ["", format_table([_HEADERS.get(name, name) for name in header], cells)]
    if trials["pruned"] and (result.importance or result.alpha_beta):
        parts += ["", "Pruned trials have no part in importance, α and β: they are of survivors."]
    print_result("\n".join(parts))
    for failed in result.failed:
        say(f"Trial {failed.trial} failed: {failed.reason}")


def _baselines_table(result: SearchResult) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the choice and the baselines on the same rows.

    The differences are of the study's metric.
    """
    metrics: list[Metric] = ["accuracy", "macro_f1", "neg_log_loss"]
    table = []
    for rows in ("held_out", "outer"):
        comparisons = {baseline.name: getattr(baseline, rows) for baseline in result.baselines}
        first = next(iter(comparisons.values()))
        chosen = [_score(first[metric].choice) for metric in metrics]
        table.append([rows.replace("_", " "), "choice", *chosen, "", ""])
        for name, comparison in comparisons.items():
            scores = [_score(comparison[metric].baseline) for metric in metrics]
            paired = comparison[result.metric]
            gain = f"{paired.choice - paired.baseline:+.4f}"
            table.append(["", name, *scores, gain, format_interval(paired.interval, "+")])
    header = ["rows", "model", "accuracy", "macro-F1", "log-loss", "choice − model", "95 %"]
    return header, table


def _score(value: float) -> str:
    return f"{abs(value):.4f}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
