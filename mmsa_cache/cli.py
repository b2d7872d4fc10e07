"""The command line. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import print_result, say
from .errors import DataError, DeviceError, SettingsError
from .memory import share_heap
from .verb import (
    ENCODERS,
    MODELS,
    Call,
    Data,
    Device,
    Storage,
    Track,
    Workers,
    say_notes,
    show_table,
    verb,
)

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


@app.command()
@verb("data", "encoding", "allow_empty_text", "text_model", "joint_model")
def check(
    call: Call,
    folder: Annotated[
        Path | None, typer.Argument(help="The data folder; default: mmsa.toml's.", metavar="DATA")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of the worst.", metavar="PAGE")
    ] = None,
) -> None:
    """List everything that is wrong with the data, and what it is like; 3 if something is bad."""
    from . import check_format, verb_check
    from .adapters import MEND

    if folder is not None and call.flags["data"] is not None:
        raise SettingsError("The data folder is given twice.", "Leave --data out.")
    settings = call.settings() if folder is None else call.settings(data=folder)
    record = verb_check.check(settings, html)
    if not call.printed(record):
        print_result(check_format.format_check(record))
    if html is not None:
        say(f"Page: {html}")
    if not record["ok"]:
        raise DataError(f"{len(record['problems'])} problem(s) in {record['data']}.", MEND)


@app.command()
@verb(*ENCODERS, "variants", "on_bad", "max_bad", "allow_empty_text", "seed")
def extract(
    call: Call,
    split: Annotated[str, typer.Option(help="train, test or all.")] = "train",
    encoders: Annotated[
        str, typer.Option(help="Names of [encoders] in mmsa.toml, default, or all.")
    ] = "default",
) -> None:
    """Run the frozen encoders once and write their features."""
    from . import verb_extract

    records = verb_extract.run(call.settings(), split, encoders)
    columns = ["split", "modality", "encoder", "rows", "rows_already_there", "set_aside"]
    call.table(records, columns)


@cache_app.command("ls")
@verb("cache")
def cache_ls(call: Call) -> None:
    """List the caches: what of, how many rows and variants, size, age, complete or not."""
    from rich.filesize import decimal

    from . import verb_cache

    records = verb_cache.ls(call.settings())
    if call.printed(records):
        return
    for r in records:
        r["size"], r["age"] = decimal(r["bytes"]), f"{r['age_days']:.1f} d"
        done = "complete" if r["complete"] else f"unfinished, {r['rows_wanted']} wanted"
        r["state"] = r["problem"] or done
    columns = ["split", "modality", "encoder", "rows", "variants", "size", "age", "state"]
    show_table(records, columns)


@cache_app.command()
@verb("cache")
def verify(call: Call) -> None:
    """Re-hash every sealed shard of every cache; name the damaged files."""
    from . import verb_cache

    def show(records: list[dict[str, Any]]) -> None:
        lines = []
        for r in records:
            whole = "complete" if r["complete"] else "unfinished"
            state = "damaged" if r["problems"] else whole
            lines.append({"cache": r["cache"], "state": state, "problems": len(r["problems"])})
        call.table(records if call.as_json else lines, ["cache", "state", "problems"])

    verb_cache.verify(call.settings(), show)


@cache_app.command()
@verb("cache")
def prune(
    call: Call,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Unfinished ones.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Those that mmsa.toml does not lead to.")
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Those of one encoder.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Days since something was added.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
) -> None:
    """Remove the caches that fit every condition given."""
    from rich.filesize import decimal

    from . import verb_cache

    records = verb_cache.prune(
        call.settings(),
        unfinished=unfinished,
        stale=stale,
        encoder=encoder,
        older_than=older_than,
        really=yes,
    )
    if call.printed(records):
        return
    show_table([{**r, "size": decimal(r["bytes"])} for r in records], _PRUNED)
    if not yes and records:
        say("Nothing was removed: add --yes to do it.")


_PRUNED = ["directory", "size", "state"]


@cache_app.command("show")
@verb("data", "cache")
def cache_show(
    call: Call,
    guid: Annotated[str, typer.Argument(help="Name of the sample.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
) -> None:
    """Show a sample: text, picture, and what the caches hold of it."""
    from . import verb_cache

    record = verb_cache.show(call.settings(), guid, split)
    if call.printed(record):
        return
    for key in ("guid", "tag", "text", "image", "thumbnail"):
        print_result(f"{key}: {record[key]}")
    rows = [
        {**row, "cache": f"{c['modality']} {c['encoder']}"}
        for c in record["caches"]
        for row in c["rows"]
    ]
    columns = ["cache", "variant", "operation", "positions", "token_norm", "pool_norms"]
    show_table(rows, columns)


@app.command()
@verb(*ENCODERS, "seed")
def search(
    call: Call,
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
) -> None:
    """Search a study's space on the cached features."""
    from . import verb_search

    if list_:
        rows = verb_search.list_studies(storage)
        for row in rows if not call.as_json else []:
            age = row["age_seconds"]
            row["age"] = "–" if age is None else f"{age / 3600:.1f} h"
            row["best"] = "–" if row["best"] is None else row["best"]
        call.table(rows, _LISTED)
        return
    record = verb_search.search(
        call.settings(),
        study,
        trials,
        workers=workers,
        storage=storage,
        how=select,
        track=track or [],
    )
    if call.printed(record):
        return
    verb_search.show(record)
    say_notes(record)


_LISTED = ["study", "finished", "complete", "pruned", "failed", "best", "age"]


@app.command()
@verb(*ENCODERS, "seed")
def train(
    call: Call,
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
) -> None:
    """Train one setting and write a run directory."""
    from . import verb_train

    if summary:
        rows = verb_train.summary(call.settings(), study or [], assignments or [])
        call.table(rows, ["part", "computes", "shape", "parameters"])
        return
    record = verb_train.train(
        call.settings(),
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
    if call.printed(record):
        return
    show_table(verb_train.figure_rows(record), verb_train.FIGURES)
    say_notes(record)
    say(f"Report: {record['directory']}/report.html")


@app.command()
@verb()
def predict(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    split: Annotated[str | None, typer.Option(help="train or test.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the guid,tag rows.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of one post.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture of one post.")] = None,
    data: Data = None,
    device: Device = None,
) -> None:
    """Predict a split, or one post: text, picture or both."""
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
    if call.printed(records):
        return
    if split is None:
        best = records[0]
        shown = ", ".join(
            f"{k} {v:.3f}" for k, v in dict(zip(classes, rows[0][1], strict=True)).items()
        )
        print_result(f"{best['tag']} ({shown})")
    elif out is None:
        print_result(verbs.format_predictions(rows, classes))


@app.command()
@verb()
def evaluate(
    call: Call,
    run: Annotated[str, typer.Option(help="Name or folder of a run.")],
    labels: Annotated[Path, typer.Option(help="A guid,tag file with labels.")],
    device: Device = None,
) -> None:
    """Score a run on the rows of a label file."""
    from . import verb_predict

    record = verb_predict.evaluate(run, labels, device)
    if call.printed(record):
        return
    show_table([record], ["run", "rows", "accuracy", "macro_f1"])
    say_notes(record)


@app.command()
@verb()
def compare(
    call: Call,
    runs: Annotated[list[str], typer.Argument(help="Names or folders of two or more runs.")],
    grouped: Annotated[
        bool,
        typer.Option("--grouped", help="Resample duplicate posts together; reads the data."),
    ] = False,
    listed: Annotated[
        int, typer.Option("--list", min=0, help="Posts to show of each kind of difference.")
    ] = 0,
) -> None:
    """Say whether runs differ on the rows that all of them judged, and where."""
    from . import verb_compare

    record = verb_compare.compare(runs, grouped=grouped)
    if call.printed(record):
        return
    print_result(verb_compare.format_comparison(record, listed))
    say_notes(record)


@app.command()
@verb()
def export(
    call: Call,
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")],
    to: Annotated[Path, typer.Option(help="Folder to make.")],
    form: Annotated[
        str, typer.Option("--format", help="safetensors, or onnx: a checked graph besides.")
    ] = "safetensors",
    force: Annotated[bool, typer.Option("--force", help="Replace an export there.")] = False,
) -> None:
    """Write a run as a folder with a model card that predicts anywhere."""
    from rich.filesize import decimal

    from . import verb_export

    record = verb_export.export(run, to, form=form, force=force)
    if call.printed(record):
        return
    rows = [{"file": name, "size": decimal(size)} for name, size in record["files"].items()]
    show_table(rows, ["file", "size"])
    say_notes(record)
    say(f"Try it: mmsa predict --run {to} --text …")


@app.command()
@verb()
def report(
    call: Call,
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
) -> None:
    """Write a run's report again: one page that opens offline."""
    from . import verb_report

    record = verb_report.report(run, against=against, data=data, out=out, device=device)
    if call.printed(record):
        return
    show_table([{**record, "against": record["against"] or "–"}], _REPORTED)
    say_notes(record)


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
@verb("data", "cache", "device", "seed")
def ablate(
    call: Call,
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
) -> None:
    """Train every combination of some axes, and say what each is worth."""
    if context.invoked_subcommand is not None:
        return
    from . import verb_ablate

    record = verb_ablate.ablate(
        call.settings(),
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
    if call.printed(record):
        return
    print_result(verb_ablate.format_ablation(record, record["axes"]))
    say_notes(record)


@ablate_app.command("report")
@verb("data", "cache", "device", "seed")
def ablate_report(
    call: Call,
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
) -> None:
    """The report's tables 1 and 2 and figure 3, its figures beside those of these encoders."""
    from . import verb_ablate

    record = verb_ablate.report(
        call.settings(),
        assignments=assignments or [],
        outer=outer,
        folds=folds,
        seeds=seeds,
        stop=stop,
        workers=workers,
        out=out,
    )
    if not call.printed(record):
        print_result(record["page"])


@bench_app.command("extract")
@verb("data", "encoding", *MODELS, "device")
def bench_extract(
    call: Call,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to measure on.")] = 2048,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 3,
    precision_effect: Annotated[
        bool, typer.Option("--precision-effect", help="Compare half precision's features too.")
    ] = False,
) -> None:
    """Stage one against its models alone and against a textbook loop."""
    from . import verb_bench

    figures = verb_bench.extract(call.settings(), pairs, rounds, precision_effect=precision_effect)
    call.figures(figures)


@bench_app.command("train")
@verb(*ENCODERS)
def bench_train(
    call: Call,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each way takes.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the training loops.")] = 1,
) -> None:
    """Stage two against a textbook loop, encoders in the loop, and single HDF5 reads."""
    from . import verb_bench

    call.figures(verb_bench.train(call.settings(), rounds, threads))


@bench_app.command("search")
@verb(*ENCODERS, "seed")
def bench_search(
    call: Call,
    study: Annotated[str, typer.Option(help="Name of a study file.")] = "pooled",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials of each run.")] = 30,
    workers: Workers = None,
) -> None:
    """A search by N workers against the same trials by one."""
    from . import verb_search

    call.figures(verb_search.bench(call.settings(), study, trials, workers))


@bench_app.command("gpu")
@verb(*ENCODERS)
def bench_gpu(
    call: Call,
    out: Annotated[
        Path, typer.Argument(help="File for the figures, written after every step.", metavar="OUT")
    ] = Path("gpu-bench.json"),
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Every step on the CPU with tiny sizes.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder that --pack wrote: the search runs on these features."),
    ] = None,
    pack: Annotated[
        Path | None,
        typer.Option(help="Write the cached training split's pooled features here; no more."),
    ] = None,
) -> None:
    """Whether everything works on a GPU and how fast; needs no data, no weights and no hub."""
    from . import verb_gpu
    from .gpu_bench.results import format_record

    if pack is not None:
        written = verb_gpu.pack(call.settings(), pack)
        call.figures({"features": str(written), "bytes": written.stat().st_size})
        return
    record = verb_gpu.run(out, rehearse=rehearse, features=features)
    table = format_record(record)
    if call.printed(record.model_dump(mode="json")):
        say(table)
    else:
        print_result(table)
    say(f"Figures: {out}")
    if record.unfinished:
        raise DeviceError(
            f"Steps that did not end by themselves: {', '.join(record.unfinished)}.",
            f"{out} has what they measured before, and the end of what they printed.",
        )


@app.command()
@verb()
def demo(
    call: Call,
    folder: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path(".demo"),
    pairs: Annotated[int, typer.Option(min=60, help="Synthetic pairs to make.")] = 360,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
) -> None:
    """Run everything on generated pairs, MiniLM and a small random-weight SwinV2."""
    from . import demo as sample

    sample.show(sample.run(folder, pairs, trials), call.as_json)


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    share_heap()  # before anything starts a thread
    sys.exit(app())
