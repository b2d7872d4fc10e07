"""``mmsa init``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsa_cache.config.settings import CONFIG_NAME
from mmsa_cache.console import print_result, say
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.disk import explain_write_errors, write_new

from .verb import Call, verb


@verb("encoding", "column", "missing", in_project=False)
def init(
    call: Call,
    data: Annotated[
        Path,
        typer.Argument(help="Folder, table or hf://datasets/NAME; default: here.", metavar="DATA"),
    ] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Write mmsa.toml without asking.")] = False,
) -> None:
    """Show how data would be read, and write an mmsa.toml for it.

    \b
    $ mmsa init posts
    $ mmsa init posts.csv --column text=body --yes
    """
    from mmsa_cache.compose.init.config import format_config
    from mmsa_cache.compose.init.format import format_profile
    from mmsa_cache.compose.init.profile import profile_data

    target = Path(CONFIG_NAME)
    if target.exists() or target.is_symlink():
        raise SettingsError(
            f"{CONFIG_NAME} is here already; it is never overwritten.",
            f"mmsa check DATA looks at other data. To begin anew: mv {CONFIG_NAME} old.toml",
        )
    settings = call.settings(data=data)
    profile = profile_data(settings, data, declared=call.flags["encoding"] is not None)
    config = format_config(profile, settings.data)
    if not call.as_json:
        print_result(f"{format_profile(profile)}\n\n{CONFIG_NAME}:\n\n{config}")
        asked = sys.stdin.isatty() and not yes
        yes = yes or (asked and typer.confirm(f"Write {CONFIG_NAME}?", default=True, err=True))
    if yes:
        with explain_write_errors(target):
            write_new(target, config.encode())
    if call.print_json(asdict(profile) | {"config": config, "written": yes}):
        return
    if yes:
        say(f"Wrote {CONFIG_NAME}. Next: mmsa check, mmsa extract --split all, mmsa train.")
    else:
        say(f"Nothing was written; --yes writes {CONFIG_NAME} without asking.")
