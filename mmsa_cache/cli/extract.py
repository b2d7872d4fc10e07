"""``mmsa extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsa_cache.errors import SettingsError

from .options import ENCODERS, Address, DryRun, Engine
from .verb import Call, verb


@verb(
    *ENCODERS,
    *("lexicon", "variants", "compile", "on_bad", "max_bad", "allow_empty_text", "missing", "seed"),
)
def extract(
    call: Call,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "train",
    encoders: Annotated[
        str, typer.Option(help="Names of [encoders] in mmsa.toml, default, or all.")
    ] = "default",
    shards: Annotated[
        str, typer.Option(help="Part I of N of the rows, for N processes.", metavar="I/N")
    ] = "1/1",
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="With --shards: wait for the other parts, do what they left, merge."
        ),
    ] = False,
    engine: Engine = None,
    address: Address = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers; default: a GPU each, else 8 cores each (Ray: one)."),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="GPUs to use, a process each; default: all.", metavar="N,N"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Object store for the features, in place of --cache.", metavar="URL"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Run the frozen encoders once and write their features.

    \b
    $ mmsa extract --split all --dry-run
    $ mmsa extract --split all
    """
    from mmsa_cache.compose.extraction.crew import EngineRequest, parse_devices
    from mmsa_cache.compose.extraction.extract import extract_splits
    from mmsa_cache.compose.extraction.parts import Portion

    request = EngineRequest(engine, workers, address, target, parse_devices(devices))
    part = Portion.of(shards, finish)
    if dry_run:
        if target is not None:
            raise SettingsError(
                "--dry-run looks into the --cache folder, not into an object store.",
                "Leave out --target: it then says what all rows would take.",
            )
        from .dry_run import show_extraction

        show_extraction(call, split, encoders)
        return
    records = extract_splits(call.settings(), split, encoders, part, request)
    columns = ["split", "modality", "encoder", "rows", "rows_computed", "rows_already_there"]
    columns += ["rows_shared", "set_aside"]
    call.print_table(records, columns)
