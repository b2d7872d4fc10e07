"""``mmsa evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result

from .options import PLACES, Decide
from .output import format_decisions, say_notes, show_table
from .verb import Call, verb


@verb(*PLACES, "device")
def evaluate(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    labels: Annotated[Path, typer.Option(help="A guid,tag file with labels.")],
    decide: Decide = None,
) -> None:
    """Score a run on the rows of a label file."""
    from mmsa_cache.compose.evaluate import evaluate as evaluate_run

    found = evaluate_run(run, labels, call.given(), decide)
    if call.printed(found.as_json()):
        return
    show_table([found.as_json()], ["run", "rows", "accuracy", "macro_f1"])
    print_result(f"\n{format_decisions(found.decisions, found.rule)}")
    say_notes(found.notes)
