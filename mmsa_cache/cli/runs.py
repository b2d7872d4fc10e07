"""``mmsa runs``: ls, show, best, rm."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.filesize import decimal

from mmsa_cache.console import print_result, say

from .options import RUN_HELP, complete_run
from .output import format_duration, show_table
from .verb import Call, verb

app = typer.Typer(help="Look after the runs that were trained here.", no_args_is_help=True)
Run = Annotated[str, typer.Argument(help=RUN_HELP, metavar="RUN", autocompletion=complete_run)]
_COLUMNS = ["run", "study", "fusion", "rows", "accuracy", "macro_f1", "inner_macro_f1", "age"]


@app.command("ls")
@verb()
def runs_ls(call: Call) -> None:
    """List the runs: study, scores, age and size; the latest first."""
    from mmsa_cache.compose.runs import list_runs

    runs = list_runs()
    if call.print_json(runs):
        return
    rows = [
        {key: "–" if value in (None, "") else value for key, value in asdict(run).items()}
        | {"age": format_duration(run.age_seconds), "size": decimal(run.bytes)}
        for run in runs
    ]
    if not runs:
        say("No run was trained here yet: mmsa train, or mmsa demo.")
        return
    show_table(rows, [*_COLUMNS, "size"])
    for run in runs:
        if run.problem:
            say(f"Note: {run.problem}")
    say("Figures are of the rows that judge; inner_macro_f1, of the others, chooses the best.")


@app.command("show")
@verb()
def runs_show(call: Call, run: Run = "latest") -> None:
    """Show a run: what made it, and its figures."""
    from mmsa_cache.compose.runs import show_run

    shown = show_run(run)
    if call.print_json(shown.as_json()):
        return
    record, figures = shown.record, shown.figures
    protocol = record.protocol
    about = {
        "run": shown.directory,
        "command": shown.command,
        "classes": ", ".join(record.classes),
        **{f"{modality} encoder": label for modality, label in record.labels.items()},
        "studies": ", ".join(f"{s.name}:{s.trial}" for s in record.studies) or "–",
        "protocol": f"outer {protocol.outer}, folds {protocol.folds}, seeds {protocol.seeds}, "
        f"seed {protocol.seed}",
        "notes": "; ".join(record.notes) or "–",
        "size": decimal(sum(shown.files.values())),
    }
    print_result("\n".join(f"{key}: {value}" for key, value in about.items()) + "\n")
    scores = [("outer", figures.outer), ("inner", figures.inner)]
    columns = ["rows of", "rows", "accuracy", "macro_f1"]
    show_table([{"rows of": part, **of.as_json()} for part, of in scores if of], columns)
    print_result("")
    rows = [{"setting": key, "value": value} for key, value in shown.changed.items()]
    show_table(rows, ["setting", "value"])
    say("All other settings are as by default.")


@app.command("best")
@verb()
def runs_best(call: Call) -> None:
    """Name the run of the best inner macro-F1.

    Runs are compared whose inner rows are those of the latest; rows that judge have no part in it.
    """
    from mmsa_cache.runs.folder import RunFolder

    best, among = RunFolder.best()
    found = {"run": best.name, "inner_macro_f1": best.inner_score, "compared": len(among)}
    if call.print_json(found):
        return
    print_result(best.name)
    passed = len(RunFolder.all()) - len(among)
    more = f"; {passed} others have other inner rows, or none" if passed else ""
    say(f"Inner macro-F1 {best.inner_score:.4f}, the best of {len(among)} run(s){more}.")


@app.command("rm")
@verb()
def runs_rm(
    call: Call,
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Names of runs.", metavar="RUN…", autocompletion=complete_run),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="What interrupted trainings left, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else only list them.")] = False,
) -> None:
    """Remove runs."""
    from mmsa_cache.compose.runs import remove_runs

    removed = remove_runs(runs or [], unfinished=unfinished, really=yes)
    if call.print_json(removed):
        return
    show_table([asdict(r) | {"size": decimal(r.bytes)} for r in removed], ["run", "size", "state"])
    if not yes and removed:
        say("Nothing was removed: add --yes to remove them.")
