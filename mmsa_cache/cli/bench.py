"""``mmsa bench``: speed, measured side by side in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.console import print_result, say
from mmsa_cache.errors import DeviceError, SettingsError
from mmsa_cache.files.results import check_outputs

from .options import ENCODERS, MODELS, Address, Engine, Force, Workers
from .output import show_table
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
    engine: Engine = None,
    address: Address = None,
) -> None:
    """Stage one against its models alone and a textbook loop; or an engine against stage one."""
    from mmsa_cache.compose.bench.extract import bench_extract as measure

    if engine is not None or address is not None:
        from mmsa_cache.compose.bench.crew import bench_crew
        from mmsa_cache.compose.extraction.crew import EngineRequest

        request = EngineRequest(engine, None, address)
        call.print_figures(bench_crew(call.settings(), pairs, rounds, request))
        return
    figures = measure(call.settings(), pairs, rounds, precision_effect=precision_effect)
    call.print_figures(figures)


@app.command("train")
@verb(*ENCODERS)
def bench_train(
    call: Call,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training loops.")] = 1,
) -> None:
    """Stage two against a textbook loop, encoders in the loop, and single HDF5 reads."""
    from mmsa_cache.compose.bench.train import bench_train as measure

    call.print_figures(measure(call.settings(), rounds, threads))


@app.command("search")
@verb(*ENCODERS, "seed")
def bench_search(
    call: Call,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "pooled",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials of each run.")] = 30,
    workers: Workers = None,
) -> None:
    """A search by N workers against the same trials by one."""
    from mmsa_cache.compose.bench.search import bench_search as measure
    from mmsa_cache.compose.session.session import Session

    call.print_figures(measure(Session(call.settings()), study, trials, workers))


@app.command("store")
@verb()
def bench_store(
    call: Call,
    rows: Annotated[
        str, typer.Option(help="Rows of each store, as N,N,…", metavar="N,N,…")
    ] = "10000,100000,1000000",
) -> None:
    """How opening, memory and training grow with a store's rows; on generated features."""
    from mmsa_cache.compose.bench import store

    found = store.bench_store(_counts(rows))
    if call.print_json(found):
        return
    say("Note: generated features. Seconds (of the processor); × is a multiple of the line before.")
    show_table(store.store_table(found), list(store.COLUMNS))


@app.command("engine")
@verb()
def bench_engine(
    call: Call,
    rows: Annotated[
        str, typer.Option(help="Rows of each extraction, as N,N,…", metavar="N,N,…")
    ] = "10000,100000,1000000",
    workers: Annotated[int, typer.Option(min=1, help="Workers that sleep.")] = 64,
    faults: Annotated[
        bool, typer.Option(help="Whether workers die and lag, and nodes are lost.")
    ] = True,
) -> None:
    """How the driver and the store bear many workers that die and lag; no encoder runs."""
    from mmsa_cache.compose.bench import engine

    found = engine.bench_engine(_counts(rows), workers, faults=faults)
    if call.print_json(found):
        return
    say("Note: simulated. Encoders sleep, on a clock that skips the time.")
    lines = engine.engine_table(found)
    show_table(lines, list(lines[0]))


def _counts(text: str) -> list[int]:
    """``"200,400"`` → ``[200, 400]``"""
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(counts) < 1:
        raise SettingsError(f"--rows {text!r} is no list of counts.", "Write it as --rows 200,400.")
    return counts


@app.command("gpu")
@verb(*ENCODERS)
def bench_gpu(
    call: Call,
    out: Annotated[
        Path, typer.Argument(help="File for the figures, written after every step.", metavar="OUT")
    ] = Path("gpu-bench.json"),
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Every step on the CPU with tiny sizes.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder that --pack wrote: the search runs on these features."),
    ] = None,
    steps: Annotated[
        str, typer.Option(help='Only these, as "search,stage two".', metavar="NAMES")
    ] = "",
    pack: Annotated[
        Path | None,
        typer.Option(help="Write the cached training split's pooled features here; no more."),
    ] = None,
    force: Force = False,
) -> None:
    """Whether everything works on a GPU and how fast; needs no data, no weights and no hub."""
    from mmsa_cache.compose.bench.gpu import verb as gpu
    from mmsa_cache.compose.bench.gpu.results import format_record
    from mmsa_cache.compose.bench.gpu.stores import PACKED
    from mmsa_cache.compose.session.session import Session

    check_outputs(out if pack is None else pack / PACKED, force=force)
    if pack is not None:
        written = gpu.pack(Session(call.settings()), pack)
        call.print_figures({"features": str(written), "bytes": written.stat().st_size})
        return
    record = gpu.bench_gpu(out, rehearse=rehearse, features=features, steps=steps)
    table = format_record(record)
    if call.print_json(record.model_dump(mode="json")):
        say(table)
    else:
        print_result(table)
    say(f"Figures: {out}")
    if record.unfinished:
        raise DeviceError(
            f"Steps that did not end by themselves: {', '.join(record.unfinished)}.",
            f"{out} has what they measured before, and the end of what they printed.",
        )
