"""``mmsa demo``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsa_cache.console import format_table, print_result

from .verb import Call, verb


@verb()
def demo(
    call: Call,
    folder: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path(".demo"),
    pairs: Annotated[int, typer.Option(min=60, help="Synthetic pairs to make.")] = 360,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
) -> None:
    """Run everything on generated pairs, MiniLM and a small random-weight SwinV2."""
    from mmsa_cache.compose.demo import run

    _show(run(folder, pairs, trials), call.as_json)


def _show(record: dict[str, Any], as_json: bool) -> None:
    """Prints what `run` returned."""
    if as_json:
        print_result(json.dumps(record, indent=1))
        return
    cells = [
        [
            row["what"],
            str(row["rows"]),
            f"{row['accuracy']:.3f}",
            "–" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}",
        ]
        for row in record["results"]
    ]
    predictions = [
        [p["guid"], p["predicted"], f"{p['probability']:.2f}", p["true"], p["text"]]
        for p in record["predictions"]
    ]
    print_result(
        "\n".join(
            [
                format_table(["", "rows", "accuracy", "macro-F1"], cells),
                "",
                format_table(["guid", "predicted", "p", "true", "text"], predictions),
                "",
                *(f"Note: {note}." for note in record["notes"]),
                f"Report: {record['report']}",
                f"{record['seconds']:.0f} s in all.",
            ]
        )
    )
