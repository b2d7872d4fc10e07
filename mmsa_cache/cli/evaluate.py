"""``mmsa evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result

from .options import RUN_HELP, RUN_SOURCES, Decide, complete_run
from .output import format_decisions, say_notes, show_table
from .verb import Call, verb


@verb(*RUN_SOURCES, "device")
def evaluate(
    call: Call,
    run: Annotated[str, typer.Option(help=RUN_HELP, autocompletion=complete_run)],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A file of labels: guid,tag or any table; default: the labels of the data."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; default: every one that has labels.")
    ] = None,
    decide: Decide = None,
) -> None:
    """Score a run on every labelled split, or on a file of labels.

    \b
    $ mmsa evaluate --run latest
    $ mmsa evaluate --run latest --labels answers.csv
    """
    from mmsa_cache.compose.predict.evaluate import evaluate as evaluate_run

    found = evaluate_run(run, labels, call.overrides(), decide, split)
    records = [of.as_json() for of in found]
    if call.print_json(records if labels is None else records[0]):
        return
    columns = ["run", *(["split"] if labels is None else []), "rows", "accuracy", "macro_f1"]
    show_table(records, columns)
    for of in found:
        title = f"{of.split}, " if of.split else ""
        print_result(f"\n{format_decisions(of.decisions, of.rule, title)}")
        if of.halves:
            print_result("")
            apart = [{"rows of": f"{title}{k}"} | s.as_json() for k, s in of.halves.items()]
            show_table(apart, ["rows of", "rows", "accuracy", "macro_f1"])
    say_notes(dict.fromkeys(note for of in found for note in of.notes))
