"""``mmsa bench``: speed, measured side by side in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import ENCODERS, MODELS, Workers
from .verb import Call, verb

app = typer.Typer(help="Measure speed side by side, in one run.", no_args_is_help=True)


@app.command("extract")
@verb("data", "encoding", *MODELS, "device")
def bench_extract(
    call: Call,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to measure on.")] = 2048,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 3,
    precision_effect: Annotated[
        bool, typer.Option("--precision-effect", help="Compare half precision's features too.")
    ] = False,
) -> None:
    """Stage one against its models alone and against a textbook loop."""
    from mmsa_cache.compose.bench_extract import bench_extract as measure

    figures = measure(call.settings(), pairs, rounds, precision_effect=precision_effect)
    call.figures(figures)


@app.command("train")
@verb(*ENCODERS)
def bench_train(
    call: Call,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training loops.")] = 1,
) -> None:
    """Stage two against a textbook loop, encoders in the loop, and single HDF5 reads."""
    from mmsa_cache.compose.bench_train import bench_train as measure

    call.figures(measure(call.settings(), rounds, threads))


@app.command("search")
@verb(*ENCODERS, "seed")
def bench_search(
    call: Call,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "pooled",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials of each run.")] = 30,
    workers: Workers = None,
) -> None:
    """A search by N workers against the same trials by one."""
    from mmsa_cache.compose.bench_search import bench_search as measure

    call.figures(measure(call.settings(), study, trials, workers))
