"""``mmsa search``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmsa_cache.console import format_table, print_result, say

from .options import ENCODERS, Storage, Track, Workers
from .output import say_notes
from .verb import Call, verb


@verb(*ENCODERS, "seed")
def search(
    call: Call,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials in all.")] = 200,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "default",
    workers: Workers = None,
    select: Annotated[
        str, typer.Option(help="best, or one-se: the simplest within one standard error of it.")
    ] = "best",
    storage: Storage = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the studies: trials, best score, age.")
    ] = False,
    track: Track = None,
) -> None:
    """Search a study's space on the cached features."""
    from mmsa_cache.compose.search import list_studies
    from mmsa_cache.compose.search import search as run_study

    if list_:
        rows = list_studies(storage)
        for row in rows if not call.as_json else []:
            age = row["age_seconds"]
            row["age"] = "–" if age is None else f"{age / 3600:.1f} h"
            row["best"] = "–" if row["best"] is None else row["best"]
        call.table(rows, _LISTED)
        return
    record = run_study(
        call.settings(),
        study,
        trials,
        workers=workers,
        storage=storage,
        how=select,
        track=track or [],
    )
    if call.printed(record):
        return
    _show(record)
    say_notes(record)


_LISTED = ["study", "finished", "complete", "pruned", "failed", "best", "age"]
_HEADERS = {"low": "5 %", "high": "95 %", "alpha": "α", "beta": "β"}


def _show(record: dict[str, Any]) -> None:
    """Prints what `search` returned."""
    low, high = record["optimism_interval"]
    trials = record["trials"]
    figures = ("inner_score", "outer_score", "optimism_gap", "outer_score_together")
    inner, outer, gap, together = (f"{record[key]:.4f}" for key in figures)
    interval = f"{low:+.4f} … {high:+.4f}"
    parts = [
        format_table(
            ["study", "trial", "inner", "outer", "gap", "95 %", "outer, together"],
            [[record["study"], str(record["trial"]), inner, outer, gap, interval, together]],
        ),
        f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed "
        f"trials; {record['metric']}; {record['outer_rows']} outer rows; "
        f"{record['seconds']:.0f} s, {100 * record['overhead_share']:.0f} % outside training.",
    ]
    for header, key in (
        (["fusion", "trials", "complete", "score", "trial"], "by_fusion"),
        (["parameter", "median", "low", "high", "trials"], "importance"),
        (["alpha", "beta", "trials", "mean", "best"], "alpha_beta"),
    ):
        keys = ["value" if name == "fusion" else name for name in header]
        cells = [[_cell(row[name]) for name in keys] for row in record[key]]
        if cells:
            parts += ["", format_table([_HEADERS.get(name, name) for name in header], cells)]
    print_result("\n".join(parts))
    for failed in record["failed"]:
        say(f"Trial {failed['trial']} failed: {failed['reason']}")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
