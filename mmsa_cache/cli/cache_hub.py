"""``mmsa cache push`` and ``mmsa cache pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from .verb import Call, verb

Address = Annotated[
    str, typer.Argument(help="hf://USER/REPO, or s3://BUCKET/PATH.", metavar="ADDRESS")
]


@verb("cache")
def push(
    call: Call,
    address: Address,
    without_text: Annotated[
        bool, typer.Option("--without-text", help="Leave the texts out; training goes without.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one.")
    ] = False,
) -> None:
    """Share the features and the rows of all splits: on the Hugging Face hub, or as objects."""
    from mmsa_cache.compose.hub.push import push as push_store

    done = push_store(call.settings(), address, without_text=without_text, private=private)
    call.print_table(
        [done], ["repository", "revision", "files", "bytes", "encoders", "splits", "texts"]
    )


@verb("cache")
def pull(call: Call, address: Address) -> None:
    """Take a store that was shared, into a folder that is empty or holds the same one."""
    from mmsa_cache.compose.hub.pull import pull as pull_store

    done = pull_store(call.settings(), address)
    columns = ["repository", "revision", "cache", "files", "files_new", "encoders", "splits"]
    call.print_table([done], columns)
