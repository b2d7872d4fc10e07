"""``mmsa cache import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .verb import Call, verb


@verb(
    "data", "encoding", "allow_empty_text", "missing", "on_bad", "max_bad", "cache", "allow_outside"
)
def import_files(
    call: Call,
    files: Annotated[
        list[Path],
        typer.Argument(help=".npy, .npz, .parquet, or an output folder of clip-retrieval."),
    ],
    modality: Annotated[str, typer.Option(help="image or text.")],
    name: Annotated[str, typer.Option(help="Of the encoder that computed the features.")],
    split: Annotated[
        str, typer.Option(help="Whose samples the rows are: train, val, test or all.")
    ] = "all",
    guids: Annotated[
        Path | None,
        typer.Option(
            help="Names of the rows, one a line; default: those in the files, or the split's order."
        ),
    ] = None,
    guid_column: Annotated[
        str | None, typer.Option(help="Column of the names in Parquet files.")
    ] = None,
    weights_name: Annotated[
        str | None,
        typer.Option(help="Of the encoder's weights; default: a hash of the files."),
    ] = None,
) -> None:
    """Take features that another program computed into the store."""
    from mmsa_cache.compose.imports.features import import_features
    from mmsa_cache.compose.imports.files import ImportRequest

    request = ImportRequest(modality, name, files, split, guids, guid_column, weights_name)
    found = import_features(call.settings(), request)
    columns = ["modality", "encoder", "rows", "rows_new", "rows_shared", "splits", "dim", "tokens"]
    call.print_table([found], columns)
