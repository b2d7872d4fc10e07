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
bench_app = typer.Typer(help="Measure speed side by side, in one run.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

Data = Annotated[Path | None, typer.Option("--data", help="Folder with train.txt and the pairs.")]
Encoding = Annotated[str | None, typer.Option(help="Codec of the text files.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Root folder of the caches.")]
TextModel = Annotated[str | None, typer.Option(help="Hub name, folder or all-MiniLM-L6-v2.")]
TextWeights = Annotated[str | None, typer.Option(help="pretrained or random.")]
ImageModel = Annotated[str | None, typer.Option(help="timm name.")]
ImageWeights = Annotated[str | None, typer.Option(help="pretrained, FILE.safetensors or random.")]
JointModel = Annotated[
    str | None, typer.Option(help="CLIP-like model for both sides: hub name or folder.")
]
Layer = Annotated[str | None, typer.Option(help="Text layer: last, a number or average:K.")]
ImageLayer = Annotated[str | None, typer.Option(help="Image layer: last, a number or average:K.")]
Tokens = Annotated[str | None, typer.Option(help="Positions kept: keep, pool:GxG or none.")]
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
    joint_model: JointModel = None,
    layer: Layer = None,
    image_layer: ImageLayer = None,
    tokens: Tokens = None,
    variants: Annotated[str | None, typer.Option(help="report or none.")] = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the frozen encoders once and write their features."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_extract

        records = verb_extract.run(_settings(flags), split)
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


@app.command()
def search(
    trials: Annotated[int, typer.Option(min=1, help="Finished trials in all.")] = 200,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "default",
    data: Data = None,
    encoding: Encoding = None,
    cache: Cache = None,
    text_model: TextModel = None,
    text_weights: TextWeights = None,
    image_model: ImageModel = None,
    image_weights: ImageWeights = None,
    joint_model: JointModel = None,
    layer: Layer = None,
    image_layer: ImageLayer = None,
    tokens: Tokens = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search a study's space on the cached features."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_stage_two

        record = verb_stage_two.search(_settings(flags), study, trials)
        keys = ["study", "trial", "metric", "inner_score", "outer_score", "optimism_gap"]
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(False, [record], keys)
            _say_notes(record)

    _guarded(debug, work)


@app.command()
def train(
    study: Annotated[str | None, typer.Option(help="best, or a study's name.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    folds: Annotated[
        int, typer.Option(min=1, help="Members, each stopped on its own fold; averaged.")
    ] = 5,
    data: Data = None,
    encoding: Encoding = None,
    cache: Cache = None,
    text_model: TextModel = None,
    text_weights: TextWeights = None,
    image_model: ImageModel = None,
    image_weights: ImageWeights = None,
    joint_model: JointModel = None,
    layer: Layer = None,
    image_layer: ImageLayer = None,
    tokens: Tokens = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train one setting and write a run directory."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_stage_two

        record = verb_stage_two.train(_settings(flags), study, name, folds)
        flat = {**record, **record["outer"]}
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(False, [flat], ["run", "rows", "accuracy", "macro_f1"])
            _say_notes(record)
            say(f"Report: {record['directory']}/report.html")

    _guarded(debug, work)


@app.command()
def predict(
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    split: Annotated[str | None, typer.Option(help="train or test.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the guid,tag rows.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of one pair.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one pair.")] = None,
    data: Data = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict a split or one pair."""

    def work() -> None:
        _check_packages()
        from . import verb_stage_two as verbs
        from .dataset import LABELS
        from .store import write_atomically

        verbs.check_pair(text, image, split)
        if text is not None and image is not None:
            rows = [("pair", verbs.predict_pair(run, text, image, device))]
        else:
            rows = verbs.predict_split(run, str(split), data, device)
        records = [
            {
                "guid": guid,
                "tag": LABELS[p.index(max(p))],
                "probabilities": dict(zip(LABELS, p, strict=True)),
            }
            for guid, p in rows
        ]
        if out is not None:
            write_atomically(out, verbs.format_predictions(rows).encode())
            say(f"{len(rows)} rows written to {out}.")
        if as_json:
            print_result(json.dumps(records, indent=1))
        elif text is not None:
            best = records[0]
            shown = ", ".join(
                f"{k} {v:.3f}" for k, v in dict(zip(LABELS, rows[0][1], strict=True)).items()
            )
            print_result(f"{best['tag']} ({shown})")
        elif out is None:
            print_result(verbs.format_predictions(rows))

    _guarded(debug, work)


@app.command()
def evaluate(
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    labels: Annotated[Path, typer.Option(help="A guid,tag file with labels.")],
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score a run on the rows of a label file."""

    def work() -> None:
        _check_packages()
        from . import verb_stage_two

        record = verb_stage_two.evaluate(run, labels, device)
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(False, [record], ["run", "rows", "accuracy", "macro_f1"])
            _say_notes(record)

    _guarded(debug, work)


@bench_app.command("extract")
def bench_extract(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to measure on.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 3,
    data: Data = None,
    encoding: Encoding = None,
    text_model: TextModel = None,
    text_weights: TextWeights = None,
    image_model: ImageModel = None,
    image_weights: ImageWeights = None,
    joint_model: JointModel = None,
    layer: Layer = None,
    image_layer: ImageLayer = None,
    tokens: Tokens = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stage one against its models alone and against a textbook loop."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_bench

        record = verb_bench.extract(_settings(flags), pairs, rounds)
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            rows = [{"figure": key, "value": value} for key, value in record.items()]
            _show(False, rows, ["figure", "value"])

    _guarded(debug, work)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path(".demo"),
    pairs: Annotated[int, typer.Option(min=60, help="Synthetic pairs to make.")] = 360,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run everything on generated pairs, MiniLM and a small random-weight SwinV2."""

    def work() -> None:
        _check_packages()
        from . import demo as sample

        sample.show(sample.run(folder, pairs, trials), as_json)

    _guarded(debug, work)


def _say_notes(record: dict[str, Any]) -> None:
    for note in record["notes"]:
        say(f"Note: {note}.")


def _settings(flags: dict[str, Any]) -> Any:
    """Settings from a verb's parameters, by the names that all verbs share."""
    from .config import load_settings

    names = {
        "data": "data.root",
        "encoding": "data.encoding",
        "cache": "cache.dir",
        "text_model": "text.model",
        "text_weights": "text.weights",
        "image_model": "image.model",
        "image_weights": "image.weights",
        "joint_model": "joint.model",
        "layer": "text.layer",
        "image_layer": "image.layer",
        "tokens": "extract.tokens",
        "variants": "extract.variants",
        "device": "device",
        "seed": "seed",
    }
    return load_settings({key: flags.get(name) for name, key in names.items()})


def _show(as_json: bool, records: list[dict[str, Any]], columns: list[str]) -> None:
    if as_json:
        print_result(json.dumps(records, indent=1))
        return
    cells = [[_cell(r[c]) for c in columns] for r in records]
    print_result(format_table(columns, cells))


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(app())
