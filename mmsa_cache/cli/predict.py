"""``mmsa predict``."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from mmsa_cache.console import print_data, print_result, say
from mmsa_cache.escaping import escaped_guids_note
from mmsa_cache.files.results import check_outputs, write_result

from .options import RUN_OR_HUB_HELP, RUN_SOURCES, Decide, Force, Online, complete_run
from .verb import Call, verb

if TYPE_CHECKING:
    from mmsa_cache.compose.session.path_policy import RunOverrides

PIPED = Path("-")
"""Given as data: posts come from standard input."""
SHOWN = 20
OnBad = Annotated[
    Literal["fail", "skip"],
    typer.Option("--on-bad", help="Bad rows of --data: fail, or skip (left empty in their place)."),
]


@verb(*RUN_SOURCES, "encoding", "column", "device")
def predict(
    call: Call,
    run: Annotated[str, typer.Option(help=RUN_OR_HUB_HELP, autocompletion=complete_run)],
    split: Annotated[str | None, typer.Option(help="train, val or test.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the rows; of --data: .csv or .jsonl.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one post.")] = None,
    decide: Decide = None,
    on_bad: OnBad = "fail",
    force: Force = False,
    online: Online = False,
) -> None:
    """Predict a split, one post, or new posts.

    New posts are a file, a folder, or JSON lines on standard input (--data -).

    \b
    $ mmsa predict --run best --split test --out predictions.csv
    $ mmsa predict --run latest --text "what a day" --image picture.jpg
    """
    overrides = call.overrides(online=online)
    if overrides.data is not None and split is None and text is None and image is None:
        _predict_new(call, run, overrides, out, decide, on_bad, force=force)
        return
    from mmsa_cache.compose.predict.predict import PredictRequest
    from mmsa_cache.compose.predict.predict import predict as predict_rows

    check_outputs(out, force=force)
    found = predict_rows(PredictRequest(run, split, text, image, overrides, decide))
    if out is not None:
        write_result(out, found.as_csv())
        say(f"{len(found.rows)} rows written to {out}.")
    if call.print_json(found.as_json()):
        return
    if marks := escaped_guids_note(guid for guid, _ in found.rows):
        say(marks)
    if split is None:
        ((_, probabilities),) = found.rows
        shown = ", ".join(
            f"{name} {p:.3f}" for name, p in zip(found.classes, probabilities, strict=True)
        )
        print_result(f"{found.tags[0]} ({shown})")
    elif out is None:
        print_data(found.as_csv())


def _predict_new(
    call: Call,
    run: str,
    overrides: RunOverrides,
    out: Path | None,
    decide: Decide,
    on_bad: OnBad,
    *,
    force: bool,
) -> None:
    """Predicts posts that no model has seen, from ``--data``."""
    from mmsa_cache.compose.predict.bulk import BulkRequest, predict_file
    from mmsa_cache.compose.predict.piped import predict_lines
    from mmsa_cache.compose.predict.predictor import load_predictor
    from mmsa_cache.errors import SettingsError

    posts, overrides = overrides.data, replace(overrides, data=None)
    if posts == PIPED:
        if out is not None:
            raise SettingsError("Predictions of --data - go to standard output.", "Write > FILE.")
        model = load_predictor(run, overrides, decide)
        bad = predict_lines(model, cast(BufferedIOBase, sys.stdin.buffer), print_data, on_bad)
        if bad:
            say(f"{len(bad)} posts are bad: {', '.join(bad[:SHOWN])}.")
        return
    if posts is None or out is None:
        raise SettingsError(
            "There is no file to write the predictions to.", "Give --out PREDICTIONS.csv or .jsonl."
        )
    flags = {"encoding": call.flags["encoding"], "columns": call.flags["column"]}
    reading = {key: value for key, value in flags.items() if value is not None}
    found = predict_file(BulkRequest(run, posts, out, overrides, decide, on_bad, reading, force))
    if not call.print_json(found):
        say(f"{found.rows} rows written to {out}, {len(found.bad)} of them empty.")
