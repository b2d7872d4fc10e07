"""``mmsa cache``: ls, verify, prune, show; import, push and pull have files of their own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.filesize import decimal

from mmsa_cache.console import print_result, say

from .cache_hub import pull, push
from .cache_import import import_files
from .output import format_duration, show_table
from .verb import Call, verb

app = typer.Typer(help="Look after feature caches.", no_args_is_help=True)
app.command("import")(import_files)
app.command()(push)
app.command()(pull)


@app.command("ls")
@verb("cache")
def cache_ls(call: Call) -> None:
    """List the features: encoder, rows, size, age and state.

    The state says for which splits they are complete.
    """
    from mmsa_cache.compose.cache.caches import existing_caches

    records = existing_caches(call.settings())
    if call.print_json(records):
        return
    rows = []
    for r in records:
        parts = [f"{split} {100 * share:.4g} %" for split, share in r.complete.items()]
        rows.append(
            asdict(r)
            | {
                "size": decimal(r.bytes),
                "age": format_duration(86400 * r.age_days),
                "state": r.problem or ", ".join(parts) or "no split needs it",
            }
        )
    columns = ["modality", "encoder", "compute", "rows", "unused", "size", "age", "state"]
    show_table(rows, columns)


@app.command()
@verb("cache")
def verify(call: Call) -> None:
    """Re-hash every sealed shard of every encoder; name the damaged files."""
    from mmsa_cache.compose.cache.verify import raise_damaged
    from mmsa_cache.compose.cache.verify import verify as verify_caches

    records = verify_caches(call.settings())
    if not call.print_json(records):
        lines = [
            {
                "cache": r.cache,
                "state": "damaged" if r.problems else "as sealed",
                "problems": len(r.problems),
            }
            for r in records
        ]
        show_table(lines, ["cache", "state", "problems"])
    raise_damaged(records)


@app.command()
@verb("cache")
def prune(
    call: Call,
    unused: Annotated[
        bool, typer.Option("--unused", help="Only rows that no split needs, and older schemas.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Those that are complete for no split.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Those that mmsa.toml does not lead to.")
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Those of one encoder.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Days since something was added.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else only list them.")] = False,
) -> None:
    """Remove the features that fit every condition given."""
    from mmsa_cache.compose.cache.prune import PruneRequest
    from mmsa_cache.compose.cache.prune import prune as prune_caches

    request = PruneRequest(unused, unfinished, stale, encoder, older_than, really=yes)
    records = prune_caches(call.settings(), request)
    if call.print_json(records):
        return
    show_table(
        [asdict(r) | {"size": decimal(r.bytes)} for r in records], ["directory", "size", "state"]
    )
    if not yes and records:
        say("Nothing was removed: add --yes to remove them.")


@app.command("show")
@verb("data", "cache", "allow_outside")
def cache_show(
    call: Call,
    guid: Annotated[str, typer.Argument(help="Name of the sample.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
) -> None:
    """Show a sample: text, picture, and what the caches hold of it."""
    from mmsa_cache.compose.cache.show import show

    shown = show(call.settings(), guid, split)
    if call.print_json(shown):
        return
    for key in ("guid", "tag", "text", "image", "thumbnail"):
        print_result(f"{key}: {getattr(shown, key)}")
    rows = [
        asdict(row) | {"cache": f"{cached.modality} {cached.encoder}"}
        for cached in shown.caches
        for row in cached.rows
    ]
    columns = ["cache", "variant", "operation", "positions", "token_norm", "pool_norms"]
    show_table(rows, columns)
