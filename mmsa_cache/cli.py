"""The command line. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from .console import format_table, print_result, say
from .errors import DataError, DeviceError, MmsaError, SettingsError

app = typer.Typer(
    help="Sentiment of image-text posts: frozen encoders cached once, fusion searched cheaply.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look after feature caches.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
ablate_app = typer.Typer(help="Train every combination of some axes; one table.")
app.add_typer(ablate_app, name="ablate")
bench_app = typer.Typer(help="Measure speed side by side, in one run.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

Data = Annotated[Path | None, typer.Option("--data", help="Folder with train.txt and the pairs.")]
Encoding = Annotated[str | None, typer.Option(help="Codec of the text files.")]
AllowEmptyText = Annotated[
    bool | None,
    typer.Option("--allow-empty-text", help="A row may have a picture only."),
]
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
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; default: the cores, or one a GPU.")
]
Storage = Annotated[
    str | None, typer.Option(help="Database: postgresql://… or sqlite:///FILE.", metavar="URL")
]
Track = Annotated[
    list[str] | None, typer.Option(help="tensorboard, mlflow or wandb, beside JSON lines.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def _guarded(debug: bool, work: Callable[[], None]) -> None:
    """Turns mmsa's own errors, and what the system refuses, into a message and an exit code."""
    try:
        with _terminated_is_interrupted():
            work()
    except (MmsaError, OSError, MemoryError) as error:
        if debug:
            raise
        known = error if isinstance(error, MmsaError) else DeviceError(*_refused(error))
        say(f"error: {known}", style="red")
        raise typer.Exit(known.exit_code) from None
    except KeyboardInterrupt:
        say("Stopped. What was finished stays; the same command goes on from there.")
        raise typer.Exit(130) from None


def _refused(error: OSError | MemoryError) -> tuple[str, str]:
    """Message and hint for what the system refused."""
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory.",
            "Lower batch_size, --workers, or close other programs.",
        )
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}",
        "Mend the disk, make room or change the rights; the same command goes on.",
    )


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: in order, and resumable."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
def check(
    folder: Annotated[
        Path | None, typer.Argument(help="The data folder; default: mmsa.toml's.", metavar="DATA")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of the worst.", metavar="PAGE")
    ] = None,
    data: Data = None,
    encoding: Encoding = None,
    allow_empty_text: AllowEmptyText = None,
    text_model: TextModel = None,
    joint_model: JointModel = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List everything that is wrong with the data, and what it is like; 3 if something is bad."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import check_format, verb_check
        from .adapters import MEND

        if folder is not None and data is not None:
            raise SettingsError("The data folder is given twice.", "Leave --data out.")
        flags["data"] = folder or data
        record = verb_check.check(_settings(flags), html)
        print_result(json.dumps(record, indent=1) if as_json else check_format.format_check(record))
        if html is not None:
            say(f"Page: {html}")
        if not record["ok"]:
            raise DataError(f"{len(record['problems'])} problem(s) in {record['data']}.", MEND)

    _guarded(debug, work)


@app.command()
def extract(
    split: Annotated[str, typer.Option(help="train, test or all.")] = "train",
    encoders: Annotated[
        str, typer.Option(help="Names of [encoders] in mmsa.toml, default, or all.")
    ] = "default",
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
    variants: Annotated[
        str | None, typer.Option(help="report, a number of copies, or none.")
    ] = None,
    on_bad: Annotated[
        str | None, typer.Option(help="Rows with a bad file: fail, or skip (set them aside).")
    ] = None,
    max_bad: Annotated[
        str | None, typer.Option(help="Largest share set aside, as 0.01 or 1%.", metavar="SHARE")
    ] = None,
    allow_empty_text: AllowEmptyText = None,
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

        records = verb_extract.run(_settings(flags), split, encoders)
        columns = ["split", "modality", "encoder", "rows", "rows_already_there", "set_aside"]
        _show(as_json, records, columns)

    _guarded(debug, work)


@cache_app.command("ls")
def cache_ls(cache: Cache = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the caches: what of, how many rows and variants, size, age, complete or not."""

    def work() -> None:
        from rich.filesize import decimal

        from . import verb_cache

        records = verb_cache.ls(_settings({"cache": cache}))
        if as_json:
            print_result(json.dumps(records, indent=1))
            return
        for r in records:
            r["size"], r["age"] = decimal(r["bytes"]), f"{r['age_days']:.1f} d"
            done = "complete" if r["complete"] else f"unfinished, {r['rows_wanted']} wanted"
            r["state"] = r["problem"] or done
        columns = ["split", "modality", "encoder", "rows", "variants", "size", "age", "state"]
        _show(False, records, columns)

    _guarded(debug, work)


@cache_app.command()
def verify(
    cache: Cache = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Re-hash every shard of every finished cache; name the damaged files."""

    def work() -> None:
        from . import verb_cache

        def show(records: list[dict[str, Any]]) -> None:
            lines = [{**r, "problems": len(r["problems"])} for r in records]
            _show(as_json, records if as_json else lines, ["cache", "problems"])

        verb_cache.verify(_settings({"cache": cache}), show)

    _guarded(debug, work)


@cache_app.command()
def prune(
    cache: Cache = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Unfinished ones.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Those that mmsa.toml does not lead to.")
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Those of one encoder.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Days since something was added.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove the caches that fit every condition given."""

    def work() -> None:
        _check_packages()
        from rich.filesize import decimal

        from . import verb_cache

        records = verb_cache.prune(
            _settings({"cache": cache}),
            unfinished=unfinished,
            stale=stale,
            encoder=encoder,
            older_than=older_than,
            really=yes,
        )
        if as_json:
            print_result(json.dumps(records, indent=1))
            return
        _show(False, [{**r, "size": decimal(r["bytes"])} for r in records], _PRUNED)
        if not yes and records:
            say("Nothing was removed: add --yes to do it.")

    _guarded(debug, work)


_PRUNED = ["directory", "size", "state"]


@cache_app.command("show")
def cache_show(
    guid: Annotated[str, typer.Argument(help="Name of the sample.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    data: Data = None,
    cache: Cache = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a sample: text, picture, and what the caches hold of it."""

    def work() -> None:
        _check_packages()
        from . import verb_cache

        record = verb_cache.show(_settings({"cache": cache, "data": data}), guid, split)
        if as_json:
            print_result(json.dumps(record, indent=1))
            return
        for key in ("guid", "tag", "text", "image", "thumbnail"):
            print_result(f"{key}: {record[key]}")
        rows = [
            {**row, "cache": f"{c['modality']} {c['encoder']}"}
            for c in record["caches"]
            for row in c["rows"]
        ]
        columns = ["cache", "variant", "operation", "positions", "token_norm", "pool_norms"]
        _show(False, rows, columns)

    _guarded(debug, work)


@app.command()
def search(
    trials: Annotated[int, typer.Option(min=1, help="Finished trials in all.")] = 200,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "default",
    workers: Workers = None,
    select: Annotated[
        str, typer.Option(help="best, or one-se: the simplest within one standard error of it.")
    ] = "best",
    storage: Storage = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the studies: trials, best score, age.")
    ] = False,
    track: Track = None,
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
        from . import verb_search

        if list_:
            rows = verb_search.list_studies(storage)
            for row in rows if not as_json else []:
                age = row["age_seconds"]
                row["age"] = "–" if age is None else f"{age / 3600:.1f} h"
                row["best"] = "–" if row["best"] is None else row["best"]
            _show(as_json, rows, _LISTED)
            return
        record = verb_search.search(
            _settings(flags),
            study,
            trials,
            workers=workers,
            storage=storage,
            how=select,
            track=track or [],
        )
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            verb_search.show(record)
            _say_notes(record)

    _guarded(debug, work)


_LISTED = ["study", "finished", "complete", "pruned", "failed", "best", "age"]


@app.command()
def train(
    study: Annotated[
        list[str] | None,
        typer.Option(help="best, NAME or NAME:TRIAL; repeated: the average of several."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the setting; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    folds: Annotated[
        int, typer.Option(min=1, help="Folds; a member each, stopped on its own fold.")
    ] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Members a fold.")] = 1,
    ensemble: Annotated[
        bool, typer.Option(help="Average the members, or keep the best of them.")
    ] = True,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="The folds only calibrate; the model learns from all their rows."
        ),
    ] = False,
    outer: Annotated[
        str | None,
        typer.Option(
            help="Rows that judge: report, report-parity, grouped, or a cross-validation: "
            "stratified-5, grouped-5."
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the model's parts and sizes; train nothing.")
    ] = False,
    track: Track = None,
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
        from . import verb_train

        if summary:
            rows = verb_train.summary(_settings(flags), study or [], assignments or [])
            _show(as_json, rows, ["part", "computes", "shape", "parameters"])
            return
        record = verb_train.train(
            _settings(flags),
            study or [],
            name,
            folds,
            seeds=seeds,
            averaged=ensemble,
            refit=refit,
            outer=outer,
            assignments=assignments or [],
            track=track or [],
        )
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(
                False, _figure_rows(record), ["rows of", "rows", "accuracy", "macro-F1", "log-loss"]
            )
            _say_notes(record)
            say(f"Report: {record['directory']}/report.html")

    _guarded(debug, work)


@app.command()
def predict(
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    split: Annotated[str | None, typer.Option(help="train or test.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the guid,tag rows.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one post.")] = None,
    data: Data = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict a split, or one post: text, picture or both."""

    def work() -> None:
        _check_packages()
        from . import verb_predict as verbs
        from .disk import write_atomically

        verbs.check_pair(text, image, split)
        classes = verbs.classes_of_run(run)
        if split is None:
            rows = [("pair", verbs.predict_pair(run, text, image, device))]
        else:
            rows = verbs.predict_split(run, split, data, device)
        records = [
            {
                "guid": guid,
                "tag": classes[p.index(max(p))],
                "probabilities": dict(zip(classes, p, strict=True)),
            }
            for guid, p in rows
        ]
        if out is not None:
            write_atomically(out, verbs.format_predictions(rows, classes).encode())
            say(f"{len(rows)} rows written to {out}.")
        if as_json:
            print_result(json.dumps(records, indent=1))
        elif split is None:
            best = records[0]
            shown = ", ".join(
                f"{k} {v:.3f}" for k, v in dict(zip(classes, rows[0][1], strict=True)).items()
            )
            print_result(f"{best['tag']} ({shown})")
        elif out is None:
            print_result(verbs.format_predictions(rows, classes))

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
        from . import verb_predict

        record = verb_predict.evaluate(run, labels, device)
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(False, [record], ["run", "rows", "accuracy", "macro_f1"])
            _say_notes(record)

    _guarded(debug, work)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or folders of two or more runs.")],
    grouped: Annotated[
        bool,
        typer.Option("--grouped", help="Resample duplicate posts together; reads the data."),
    ] = False,
    listed: Annotated[
        int, typer.Option("--list", min=0, help="Posts to show of each kind of difference.")
    ] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say whether runs differ on the rows that all of them judged, and where."""

    def work() -> None:
        _check_packages()
        from . import verb_compare

        record = verb_compare.compare(runs, grouped=grouped)
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            print_result(verb_compare.format_comparison(record, listed))
            _say_notes(record)

    _guarded(debug, work)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")],
    to: Annotated[Path, typer.Option(help="Folder to make.")],
    form: Annotated[
        str, typer.Option("--format", help="safetensors, or onnx: a checked graph besides.")
    ] = "safetensors",
    force: Annotated[bool, typer.Option("--force", help="Replace an export there.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run as a folder with a model card that predicts anywhere."""

    def work() -> None:
        _check_packages()
        from rich.filesize import decimal

        from . import verb_export

        record = verb_export.export(run, to, form=form, force=force)
        if as_json:
            print_result(json.dumps(record, indent=1))
            return
        rows = [{"file": name, "size": decimal(size)} for name, size in record["files"].items()]
        _show(False, rows, ["file", "size"])
        _say_notes(record)
        say(f"Try it: mmsa predict --run {to} --text …")

    _guarded(debug, work)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Show what another run's loss does to each class's recall; default: the latest "
            "run here that differs in the loss only.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the page; default: report.html of the run.")
    ] = None,
    data: Data = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's report again: one page that opens offline."""

    def work() -> None:
        _check_packages()
        from . import verb_report

        record = verb_report.report(run, against=against, data=data, out=out, device=device)
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            _show(False, [{**record, "against": record["against"] or "–"}], _REPORTED)
            _say_notes(record)

    _guarded(debug, work)


_REPORTED = ["run", "against", "bytes", "report"]


Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of every setting; repeatable.")
]
Stop = Annotated[
    str,
    typer.Option(
        help="Rows that choose the epoch: held-out, or judged (the report's way, optimistic)."
    ),
]


@ablate_app.callback(invoke_without_command=True)
def ablate(
    context: typer.Context,
    axis: Annotated[
        list[str] | None,
        typer.Option("--axis", help="KEY=VALUE,VALUE of the setting; repeatable.", metavar="AXIS"),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="A study whose lists are axes and whose fixed values hold.")
    ] = None,
    assignments: Assignments = None,
    outer: Annotated[
        str | None,
        typer.Option(help="Rows that judge: report (default), report-parity, grouped, grouped-5 …"),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Folds, a training each; default 5, or the study's.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings a fold; default 1, or the study's.")
    ] = None,
    stop: Stop = "held-out",
    workers: Workers = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="FILE.csv, .md or .json; repeatable.")
    ] = None,
    data: Data = None,
    cache: Cache = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train every combination of some axes, and say what each is worth."""
    if context.invoked_subcommand is not None:
        return
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_ablate

        record = verb_ablate.ablate(
            _settings(flags),
            axis or [],
            study=study,
            assignments=assignments or [],
            outer=outer,
            folds=folds,
            seeds=seeds,
            stop=stop,
            workers=workers,
            out=out or [],
        )
        if as_json:
            print_result(json.dumps(record, indent=1))
        else:
            print_result(verb_ablate.format_ablation(record, record["axes"]))
            _say_notes(record)

    _guarded(debug, work)


@ablate_app.command("report")
def ablate_report(
    assignments: Assignments = None,
    outer: Annotated[
        str, typer.Option(help="Rows that judge; report-parity is the report's own split.")
    ] = "report-parity",
    folds: Annotated[int, typer.Option(min=1, help="Folds, a training each.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings a fold.")] = 3,
    stop: Stop = "held-out",
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.md for the page; figure 3 goes beside it.")
    ] = None,
    data: Data = None,
    cache: Cache = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The report's tables 1 and 2 and figure 3, its figures beside those of these encoders."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_ablate

        record = verb_ablate.report(
            _settings(flags),
            assignments=assignments or [],
            outer=outer,
            folds=folds,
            seeds=seeds,
            stop=stop,
            workers=workers,
            out=out,
        )
        print_result(json.dumps(record, indent=1) if as_json else record["page"])

    _guarded(debug, work)


@bench_app.command("extract")
def bench_extract(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to measure on.")] = 2048,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 3,
    precision_effect: Annotated[
        bool, typer.Option("--precision-effect", help="Compare half precision's features too.")
    ] = False,
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

        figures = verb_bench.extract(
            _settings(flags), pairs, rounds, precision_effect=precision_effect
        )
        _show_figures(as_json, figures)

    _guarded(debug, work)


@bench_app.command("train")
def bench_train(
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training loops.")] = 1,
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
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stage two against a textbook loop, encoders in the loop, and single HDF5 reads."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_bench

        _show_figures(as_json, verb_bench.train(_settings(flags), rounds, threads))

    _guarded(debug, work)


@bench_app.command("search")
def bench_search(
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "pooled",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials of each run.")] = 30,
    workers: Workers = None,
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
    """A search by N workers against the same trials by one."""
    flags = locals()

    def work() -> None:
        _check_packages()
        from . import verb_search

        _show_figures(as_json, verb_search.bench(_settings(flags), study, trials, workers))

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


def _figure_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What `verb_train.train` returned, a line a set of rows."""
    rows = [
        {
            "rows of": title,
            "rows": str(record[key]["rows"]),
            "accuracy": f"{record[key]['accuracy']:.4f}",
            "macro-F1": f"{record[key]['macro_f1']:.4f}",
            "log-loss": f"{-record[key]['neg_log_loss']:.4f}",
        }
        for key, title in (
            ("outer", "outer"),
            ("outer_uncalibrated", "outer, uncalibrated"),
            ("inner", "inner"),
            ("inner_uncalibrated", "inner, uncalibrated"),
        )
    ]
    for key, title, count in (
        ("spread", "single members on outer", len(record["members"])),
        ("spread_parts", "outer parts", len(record["parts"])),
    ):
        if count > 1:
            of = record[key]
            rows.append(
                {
                    "rows of": f"{count} {title}",
                    "rows": "",
                    **{
                        name: f"{sign * of[m]['mean']:.4f} ± {of[m]['deviation']:.4f}"
                        for name, m, sign in (
                            ("accuracy", "accuracy", 1),
                            ("macro-F1", "macro_f1", 1),
                            ("log-loss", "neg_log_loss", -1),
                        )
                    },
                }
            )
    return rows


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
        "on_bad": "extract.on_bad",
        "max_bad": "extract.max_bad",
        "allow_empty_text": "data.allow_empty_text",
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


def _show_figures(as_json: bool, record: dict[str, Any]) -> None:
    if as_json:
        print_result(json.dumps(record, indent=1))
    else:
        rows = [{"figure": key, "value": value} for key, value in record.items()]
        _show(False, rows, ["figure", "value"])


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_cell, value))})"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(app())
