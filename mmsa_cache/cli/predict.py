"""``mmsa predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result, say
from mmsa_cache.disk import write_atomically

from .options import Data, Device
from .verb import Call, verb


@verb()
def predict(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    split: Annotated[str | None, typer.Option(help="train or test.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the guid,tag rows.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one post.")] = None,
    data: Data = None,
    device: Device = None,
) -> None:
    """Predict a split, or one post: text, picture or both."""
    from mmsa_cache.compose import predict as predicting

    predicting.check_pair(text, image, split)
    classes = predicting.classes_of_run(run)
    if split is None:
        rows = [("pair", predicting.predict_pair(run, text, image, device))]
    else:
        rows = predicting.predict_split(run, split, data, device)
    records = [
        {
            "guid": guid,
            "tag": classes[p.index(max(p))],
            "probabilities": dict(zip(classes, p, strict=True)),
        }
        for guid, p in rows
    ]
    if out is not None:
        write_atomically(out, predicting.format_predictions(rows, classes).encode())
        say(f"{len(rows)} rows written to {out}.")
    if call.printed(records):
        return
    if split is None:
        best = records[0]
        shown = ", ".join(
            f"{k} {v:.3f}" for k, v in dict(zip(classes, rows[0][1], strict=True)).items()
        )
        print_result(f"{best['tag']} ({shown})")
    elif out is None:
        print_result(predicting.format_predictions(rows, classes))
