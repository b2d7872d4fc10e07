"""``mmsa predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_data, print_result, say
from mmsa_cache.results import claim, write_result
from mmsa_cache.shown import in_cell

from .options import PLACES, Decide, Force
from .verb import Call, verb


@verb(*PLACES, "device")
def predict(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    split: Annotated[str | None, typer.Option(help="train, val or test.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the guid,tag rows.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one post.")] = None,
    decide: Decide = None,
    force: Force = False,
) -> None:
    """Predict a split, or one post: text, picture or both."""
    from mmsa_cache.compose.predict import PredictRequest
    from mmsa_cache.compose.predict import predict as predict_rows

    claim(out, force=force)
    found = predict_rows(PredictRequest(run, split, text, image, call.given(), decide))
    if out is not None:
        write_result(out, found.as_csv())
        say(f"{len(found.rows)} rows written to {out}.")
    if call.printed(found.as_json()):
        return
    marked = sum(in_cell(guid) != guid for guid, _ in found.rows)
    if marked:
        say(f"Note: {marked} guid(s) begin as a formula does: CSV has an apostrophe before them.")
    if split is None:
        ((_, probabilities),) = found.rows
        shown = ", ".join(
            f"{name} {p:.3f}" for name, p in zip(found.classes, probabilities, strict=True)
        )
        print_result(f"{found.tags[0]} ({shown})")
    elif out is None:
        print_data(found.as_csv())
