"""The command line. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import format_table, print_result, say
from .errors import MmsaError

app = typer.Typer(
    help="Sentiment of image-text posts: frozen encoders cached once, fusion searched cheaply.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look after feature caches.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Data = Annotated[Path | None, typer.Option("--data", help="Folder with train.txt and the pairs.")]
Encoding = Annotated[str | None, typer.Option(help="Codec of the text files.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Root folder of the caches.")]
TextModel = Annotated[str | None, typer.Option(help="Hub name, folder or all-MiniLM-L6-v2.")]
TextWeights = Annotated[str | None, typer.Option(help="pretrained or random.")]
ImageModel = Annotated[str | None, typer.Option(help="timm name.")]
ImageWeights = Annotated[str | None, typer.Option(help="pretrained, FILE.safetensors or random.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def _guarded(debug: bool, work: Callable[[], None]) -> None:
    """Turns mmsa's own errors into a message and an exit code."""
    try:
        work()
    except MmsaError as error:
        if debug:
            raise
        say(f"error: {error}", style="red")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say("Stopped. What was finished stays; the same command goes on from there.")
        raise typer.Exit(130) from None


def _check_packages() -> None:
    """``extract`` and ``fuse`` are generic names: another package of that name may come first."""
    import importlib.util

    here = Path(__file__).resolve().parent.parent
    for name in ("extract", "fuse"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != here:
            found = spec.origin if spec else "nothing"
            raise MmsaError(
                f"The package {name!r} beside mmsa_cache is expected, Python finds {found}.",
                f"Rename or uninstall the other {name!r}, or leave the folder that holds it.",
            )


@app.command()
def extract(
    split: Annotated[str, typer.Option(help="train, test or all.")] = "train",
    data: Data = None,
    encoding: Encoding = None,
    cache: Cache = None,
    text_model: TextModel = None,
    text_weights: TextWeights = None,
    image_model: ImageModel = None,
    image_weights: ImageWeights = None,
    variants: Annotated[str | None, typer.Option(help="report or none.")] = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the frozen encoders once and write their features."""

    def work() -> None:
        _check_packages()
        from . import verb_extract
        from .config import load_settings

        records = verb_extract.run(
            load_settings(
                {
                    "data.root": data,
                    "data.encoding": encoding,
                    "cache.dir": cache,
                    "text.model": text_model,
                    "text.weights": text_weights,
                    "image.model": image_model,
                    "image.weights": image_weights,
                    "extract.variants": variants,
                    "device": device,
                    "seed": seed,
                }
            ),
            split,
        )
        _show(as_json, records, ["split", "modality", "encoder", "rows", "rows_already_there"])

    _guarded(debug, work)


@cache_app.command()
def verify(
    cache: Cache = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Re-hash every shard of every finished cache; name the damaged files."""

    def work() -> None:
        from .config import load_settings
        from .errors import CacheNotFoundError, DamagedCacheError
        from .store import MANIFEST, verify_cache

        root = load_settings({"cache.dir": cache}).cache.dir
        folders = [path.parent for path in sorted(root.glob(f"*/*/*/{MANIFEST}"))]
        if not folders:
            raise CacheNotFoundError(f"There is no finished cache in {root}.", "Run mmsa extract.")
        records = [{"cache": str(f), "problems": verify_cache(f)} for f in folders]
        _show(as_json, records, ["cache", "problems"])
        problems = [problem for record in records for problem in record["problems"]]
        if problems:
            raise DamagedCacheError(
                f"{len(problems)} damaged file(s).",
                "Delete the cache folders named and run mmsa extract again.",
                problems,
            )

    _guarded(debug, work)


def _show(as_json: bool, records: list[dict[str, Any]], columns: list[str]) -> None:
    if as_json:
        print_result(json.dumps(records, indent=1))
        return
    cells = [[str(len(r[c]) if isinstance(r[c], list) else r[c]) for c in columns] for r in records]
    print_result(format_table(columns, cells))


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(app())
