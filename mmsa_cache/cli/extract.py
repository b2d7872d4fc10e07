"""``mmsa extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import ENCODERS, DryRun
from .verb import Call, verb


@verb(*ENCODERS, "lexicon", "variants", "on_bad", "max_bad", "allow_empty_text", "missing", "seed")
def extract(
    call: Call,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "train",
    encoders: Annotated[
        str, typer.Option(help="Names of [encoders] in mmsa.toml, default, or all.")
    ] = "default",
    shards: Annotated[
        str, typer.Option(help="Part I of N of the rows, for N processes.", metavar="I/N")
    ] = "1/1",
    dry_run: DryRun = False,
) -> None:
    """Run the frozen encoders once and write their features."""
    if dry_run:
        from .dry_run import show_extraction

        show_extraction(call, split, encoders)
        return
    from mmsa_cache.compose.extract import extract_splits, part_of

    records = extract_splits(call.settings(), split, encoders, part_of(shards))
    columns = ["split", "modality", "encoder", "rows", "rows_computed", "rows_already_there"]
    columns += ["rows_shared", "set_aside"]
    call.table(records, columns)
