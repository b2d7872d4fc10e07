"""``mmsa evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import PLACES
from .output import say_notes, show_table
from .verb import Call, verb


@verb(*PLACES, "device")
def evaluate(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    labels: Annotated[Path, typer.Option(help="A guid,tag file with labels.")],
) -> None:
    """Score a run on the rows of a label file."""
    from mmsa_cache.compose.evaluate import evaluate as evaluate_run

    record = evaluate_run(run, labels, call.given()).as_json()
    if call.printed(record):
        return
    show_table([record], ["run", "rows", "accuracy", "macro_f1"])
    say_notes(record["notes"])
