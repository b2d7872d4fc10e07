"""``mmsa search``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, print_result, say

from .options import ENCODERS, Address, DryRun, Engine, Track, Workers, complete_study
from .output import say_notes
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.figures.records import Metric
    from fuse.search.search import SearchResult


@verb(*ENCODERS, "seed", "storage")
def search(
    call: Call,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials in all.")] = 200,
    study: Annotated[
        str, typer.Option(help="Name of a study file.", autocompletion=complete_study)
    ] = "default",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the study in the database; default: that of its file."),
    ] = None,
    outer: Annotated[
        str | None,
        typer.Option(
            help="Rows that judge the choice, as val; the study is then NAME@val. Default: the "
            "study file's."
        ),
    ] = None,
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    select: Annotated[
        str, typer.Option(help="best, or one-se: the simplest within one standard error of it.")
    ] = "best",
    list_: Annotated[
        bool, typer.Option("--list", help="Show the studies: trials, best score, age.")
    ] = False,
    track: Track = None,
    dashboard: Annotated[
        bool,
        typer.Option("--dashboard", help="Show the study in a browser meanwhile; says where."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Search a study's space on the cached features.

    \b
    $ mmsa search --trials 200
    $ mmsa search --study pooled --trials 50 --dry-run
    """
    from mmsa_cache.compose.extraction.crew import EngineRequest
    from mmsa_cache.compose.search.search import SearchRequest, list_studies
    from mmsa_cache.compose.search.search import search as run_study
    from mmsa_cache.compose.session.session import Session

    if list_:
        rows = [listed.model_dump() for listed in list_studies(call.settings())]
        for row in rows if not call.as_json else []:
            age = row["age_seconds"]
            row["age"] = "–" if age is None else f"{age / 3600:.1f} h"
            row["best"] = "–" if row["best"] is None else row["best"]
        call.print_table(rows, _LISTED)
        return
    crew = EngineRequest(engine, workers, address)
    request = SearchRequest(
        study, trials, crew, select, name, track=track or [], outer=outer, dashboard=dashboard
    )
    if dry_run:
        from .dry_run import show_search

        show_search(call, request)
        return
    result = run_study(Session(call.settings()), request)
    if call.print_json(result.model_dump(mode="json")):
        return
    _show(result)
    say_notes(result.notes)


_LISTED = ["study", "finished", "complete", "pruned", "failed", "best", "age"]
_HEADERS = {"low": "5 %", "high": "95 %", "alpha": "α", "beta": "β"}


def _show(result: SearchResult) -> None:
    """Prints the choice, the trials, and what mattered."""
    low, high = result.optimism_interval
    scores = (
        result.inner_score,
        result.outer_score,
        result.optimism_gap,
        result.outer_score_together,
    )
    inner, outer, gap, together = (f"{score:.4f}" for score in scores)
    interval = f"{low:+.4f} … {high:+.4f}"
    header = ["study", "trial", "inner", "outer", "gap", "95 %", "outer, together"]
    choice = [result.study, str(result.trial), inner, outer, gap, interval, together]
    trials = result.trials
    parts = [
        format_table(header, [choice]),
        f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed "
        f"trials; {result.metric}; {result.outer_rows} outer rows; "
        f"{result.seconds:.0f} s, {100 * result.overhead_share:.0f} % outside training.",
    ]
    if result.baselines:
        parts += ["", format_table(_BESIDE, _beside(result))]
    for header, rows in (
        (["fusion", "trials", "complete", "score", "trial"], result.by_fusion),
        (["parameter", "median", "low", "high", "trials", "pruned"], result.importance),
        (["alpha", "beta", "trials", "mean", "best", "pruned"], result.alpha_beta),
    ):
        keys = ["value" if name == "fusion" else name for name in header]
        cells = [[_cell(getattr(row, key)) for key in keys] for row in rows]
        if cells:
            parts += ["", format_table([_HEADERS.get(name, name) for name in header], cells)]
    if trials["pruned"] and (result.importance or result.alpha_beta):
        parts += ["", "Pruned trials have no part in importance, α and β: they are of survivors."]
    print_result("\n".join(parts))
    for failed in result.failed:
        say(f"Trial {failed.trial} failed: {failed.reason}")


_BESIDE = ["rows", "model", "accuracy", "macro-F1", "log-loss", "choice − model", "95 %"]


def _beside(result: SearchResult) -> list[list[str]]:
    """The choice and the baselines on the same rows; the differences are of the study's metric."""
    rows = []
    for where in ("held_out", "outer"):
        found = {of.name: getattr(of, where) for of in result.baselines}
        first = next(iter(found.values()))
        chosen = [first[metric].choice for metric in _FIGURES]
        rows.append([where.replace("_", " "), "choice", *map(_score, chosen), "", ""])
        for name, of in found.items():
            scores = [of[metric].baseline for metric in _FIGURES]
            paired = of[result.metric]
            gain = f"{paired.choice - paired.baseline:+.4f}"
            interval = f"{paired.interval.low:+.4f} … {paired.interval.high:+.4f}"
            rows.append(["", name, *map(_score, scores), gain, interval])
    return rows


_FIGURES: list[Metric] = ["accuracy", "macro_f1", "neg_log_loss"]


def _score(value: float) -> str:
    return f"{abs(value):.4f}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
