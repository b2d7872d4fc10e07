"""``mmsa demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import format_table, print_result

from .verb import Call, verb


@verb(in_project=False)
def demo(
    call: Call,
    folder: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path(".demo"),
    pairs: Annotated[int, typer.Option(min=60, help="Synthetic pairs to make.")] = 360,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
) -> None:
    """Run everything on generated pairs, with small encoders.

    They are MiniLM and a small SwinV2 of random weights.
    """
    from mmsa_cache.compose.demo import run

    found = run(folder, pairs, trials)
    if call.print_json(found):
        return
    results = [
        [
            row.what,
            str(row.rows),
            f"{row.accuracy:.3f}",
            "–" if row.macro_f1 is None else f"{row.macro_f1:.3f}",
        ]
        for row in found.results
    ]
    predictions = [
        [post.guid, post.predicted, f"{post.probability:.2f}", post.true, post.text]
        for post in found.predictions
    ]
    print_result(
        "\n".join(
            [
                format_table(["", "rows", "accuracy", "macro-F1"], results),
                "",
                format_table(["guid", "predicted", "p", "true", "text"], predictions),
                "",
                *(f"Note: {note}." for note in found.notes),
                f"Report: {found.report}",
                f"{found.seconds:.0f} s in all.",
            ]
        )
    )
