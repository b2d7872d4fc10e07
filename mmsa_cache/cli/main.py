"""The command line. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mmsa_cache.console import guard_terminal, print_result
from mmsa_cache.native.memory import use_one_heap
from mmsa_cache.version import __version__

from . import ablate, bench, cache, runs
from .arguments import mask_addresses, original_arguments
from .check import check
from .compare import compare
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .extract import extract
from .group import VisibleGroup
from .init import init
from .predict import predict
from .report import report
from .search import search
from .serve import serve
from .train import train

app = typer.Typer(
    cls=VisibleGroup,
    help="""Sentiment of image-text posts: frozen encoders cached once, fusion searched cheaply.

    \b
    $ mmsa demo          everything once, on generated posts
    $ mmsa init posts    your own: then check, extract, search, train, predict
    $ mmsa doctor        what is here, what is missing, what to do about it
    """,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts are shown as written: square brackets are no markup
)
for group, name in (
    (cache.app, "cache"),
    (runs.app, "runs"),
    (ablate.app, "ablate"),
    (bench.app, "bench"),
):
    app.add_typer(group, name=name, cls=VisibleGroup)
for verb in (
    init,
    check,
    extract,
    search,
    train,
    predict,
    evaluate,
    compare,
    export,
    report,
    serve,
    demo,
    doctor,
):
    app.command()(verb)


def _print_version(asked: bool) -> None:
    if asked:
        print_result(f"mmsa {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_print_version, help="Show the version."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Runs the command that the process was started with."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    guard_terminal()
    use_one_heap()  # before anything starts a thread
    arguments = original_arguments()
    sys.argv[1:] = mask_addresses(arguments)  # runs and trackers keep it
    sys.exit(app(arguments))
