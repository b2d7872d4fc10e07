"""``mmsa ablate`` and ``mmsa ablate report``."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import format_table, progress, say
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import SettingsError
from mmsa_cache.runs.directory import RUNS, Shelf

from .pipeline import joined_labels, notes_of
from .search import devices_of, prepared, usable_cores

SHELF = RUNS / ".ablation"
"""Where finished trainings lie; the same training is never run twice."""
_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_DEFAULTS: dict[str, Any] = {"outer": "report", "folds": 5, "seeds": 1}


def ablate(
    settings: Settings,
    axes: Sequence[str],
    *,
    study: str | None = None,
    assignments: Sequence[str] = (),
    outer: str | None = None,
    folds: int | None = None,
    seeds: int | None = None,
    stop: str = "held-out",
    workers: int | None = None,
    out: Sequence[Path] = (),
) -> dict[str, Any]:
    """Trains every combination of some axes and says what each is worth.

    Args:
        settings: The command's settings.
        axes: Each ``key=value,value``; the first changes slowest.
        study: A study file whose lists are axes too, and whose fixed values hold.
        assignments: ``key=value`` that hold for all.
        outer: Rows that judge; default: the study's, or ``report``.
        folds: Folds of the development rows, a training each; default: the study's, or 5.
        seeds: Trainings a fold; default: the study's, or 1.
        stop: See `fuse.evidence.ablation.protocol`.
        workers: Worker processes; None takes one a usable core, or one a GPU.
        out: Files for the table, ``.csv``, ``.md`` or ``.json``.

    Returns:
        ``axes``, ``cells`` (see `ablation.tabulate`), how they came about, and ``notes``.

    Raises:
        SettingsError: Wrong axes, values or flags, all at once.
    """
    from fuse.evidence import ablation

    _check_suffixes(out)
    plan = _plan(axes, study, assignments)
    given = {"outer": outer, "folds": folds, "seeds": seeds}
    basis = asdict(plan) if study else _DEFAULTS
    how: dict[str, Any] = {
        key: basis[key] if value is None else value for key, value in given.items()
    }
    table = ablation.cells(plan, list(plan.space))
    record, _ = _run(settings, table, plan.metric, stop=stop, workers=workers, **how)
    record = {"axes": list(plan.space), **record}
    for path in out:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _WRITERS[path.suffix](record).encode())
    return record


def report(
    settings: Settings,
    *,
    assignments: Sequence[str] = (),
    outer: str = "report-parity",
    folds: int = 1,
    seeds: int = 3,
    stop: str = "held-out",
    workers: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Trains the cells of the report's tables 1 and 2 and figure 3.

    Args:
        settings: The command's settings.
        assignments: ``key=value`` over the report's own settings.
        outer: Rows that judge; the report's split.
        folds: See `ablate`.
        seeds: See `ablate`.
        stop: See `fuse.evidence.ablation.protocol`.
        workers: See `ablate`.
        out: A Markdown file for the page; figure 3 is written beside it.

    Returns:
        As `ablate`; also ``changes``, ``page`` and ``picture``.
    """
    from fuse.evidence import parity
    from fuse.setting import parse

    if out is not None and out.suffix != ".md":
        raise SettingsError(f"{out}: the page is Markdown.", "Give --out FILE.md.")
    values = parse(list(assignments))
    text, image = _first_positions(settings, values)
    table = parity.cells(values, text, image)
    record, found = _run(
        settings, table, "accuracy", outer=outer, folds=folds, seeds=seeds, stop=stop,
        workers=workers,
    )  # fmt: skip
    names = list(record["judged"])
    rarest = min(names, key=lambda name: record["judged"][name])
    if tuple(sorted(record["judged"].values())) != parity.JUDGED_ROWS:
        record["notes"].append("these are not the report's rows: its figures are of others")
    record |= {
        "changes": parity.pairs(table, found["outcome"], found["labels"], names),
        "rarest_class": rarest,
        "pools": {"text": table[0].setting.text_pool, "image": table[0].setting.image_pool},
        "level": table[0].setting.level,
        "assignments": list(assignments),
    }
    name = "figure-3.svg" if out is None else out.with_suffix(".svg").name
    record |= {"page": parity.page(record, name), "picture": parity.picture(record)}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out.with_suffix(".svg"), record["picture"].encode())
        write_atomically(out, record["page"].encode())
        say(f"Written: {out} and {name} beside it.")
    return record


def _first_positions(settings: Settings, values: dict[str, Any]) -> tuple[str, str]:
    """Pools at the first position of either side, which is what the report's code reads."""
    from fuse.setting import Setting

    from .pipeline import open_bank
    from .samples import load_samples

    pair = replace(Setting(), **values).encoders
    bank = open_bank(settings, "train", load_samples(settings, "train"), [pair])
    return tuple(
        "cls" if "cls" in features.pools else "first" for features in (bank.text, bank.image)
    )  # type: ignore[return-value]


def _plan(axes: Sequence[str], study: str | None, assignments: Sequence[str]) -> Any:
    """A study whose space is the axes.

    Raises:
        SettingsError: With every mistake at once.
    """
    from fuse.search.space import Study, value_problem
    from fuse.search.study_file import find_study, read_study
    from fuse.setting import parse

    found = read_study(find_study(study)) if study else Study("ablation")
    problems: list[str] = []
    space: dict[str, Any] = {}
    for axis in axes:
        key, sign, listed = axis.partition("=")
        if not sign:
            problems.append(f"{axis}: write KEY=VALUE,VALUE")
            continue
        if key in space:
            problems.append(f"{key}: stands twice")
        try:
            values = [parse([f"{key}={value}"])[key] for value in listed.split(",")]
        except SettingsError as error:
            problems += error.problems
            continue
        wrong = [problem for value in values if (problem := value_problem(key, value))]
        problems += [f"{key}: {problem}" for problem in wrong]
        if len(set(values)) < len(values):
            problems.append(f"{key}: a value stands twice")
        space[key] = values
    fixed = {key: value for key, value in found.fixed.items() if key not in space}
    try:
        changes = parse(list(assignments))
    except SettingsError as error:
        problems += error.problems
        changes = {}
    problems += [f"{key}: an axis and --set" for key in changes if key in space]
    kept = {key: choice for key, choice in found.space.items() if key not in changes}
    if problems:
        raise SettingsError("These axes cannot be gone through.", "Correct them all.", problems)
    if not space and not kept:
        raise SettingsError(
            "There is nothing to compare.", "Give --axis KEY=VALUE,VALUE, or --study NAME."
        )
    metric = changes.pop("metric", found.metric)
    return replace(found, space={**kept, **space}, fixed={**fixed, **changes}, metric=metric)


def _run(
    settings: Settings,
    table: Sequence[Any],
    metric: str,
    *,
    outer: str,
    folds: int,
    seeds: int,
    stop: str,
    workers: int | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains what is missing; the record, and what it was made of."""
    import numpy as np

    from fuse.evidence import ablation

    chosen = [cell.setting for cell in table]
    pairs = list(dict.fromkeys(setting.encoders for setting in chosen))
    devices = devices_of(settings.device, workers)
    shelf = Shelf(SHELF)
    started = time.monotonic()
    with (
        prepared(settings, pairs, {setting.grid for setting in chosen}, RUNS) as ready,
        shelf.exclusive(),
    ):
        labels = ready["labels"]
        how = ablation.protocol(
            labels, ready["groups"], outer=outer, folds=folds, seeds=seeds,
            seed=settings.seed, stop=stop,
        )  # fmt: skip
        outcome, done_before = _train(table, how, ready, shelf, metric, devices)
    judged = labels[how.rows]
    record = {
        "cells": ablation.tabulate(table, outcome, judged, ready["names"]),
        "judged": {
            name: int(np.count_nonzero(judged == code)) for code, name in enumerate(ready["names"])
        },
        "outer": outer,
        "folds": folds,
        "seeds": seeds,
        "members": how.members,
        "stop": stop,
        "metric": metric,
        "resamples": ablation.RESAMPLES,
        "encoders": joined_labels(settings, pairs),
        "command": shlex.join(["mmsa", *sys.argv[1:]]),
        "workers": len(devices),
        "device": f"{usable_cores()} CPU cores" if devices[0] == "cpu" else devices[0],
        "trainings": len(how.units) * len(set(chosen)),
        "done_before": done_before,
        "seconds": round(time.monotonic() - started, 1),
        "seconds_of_trainings": round(
            sum(r["seconds"] for found in outcome.records.values() for r in found), 1
        ),
        "notes": notes_of(settings, pairs),
    }
    if outcome.failures:
        say(format_ablation(record, [*table[0].labels]))
        ablation.check(outcome, table)
    return record, {"outcome": outcome, "labels": judged}


def _train(
    table: Sequence[Any],
    how: Any,
    ready: dict[str, Any],
    shelf: Shelf,
    metric: str,
    devices: list[str],
) -> tuple[Any, int]:
    """The outcome, and how many trainings there were already."""
    import contextlib

    from fuse.evidence import ablation

    origin = ready["origin"]
    titles = {cell.setting: ablation.title_of(cell) for cell in reversed(table)}
    done_before = 0

    def features(setting: Any) -> dict[str, str]:
        return {
            m: origin[m] if isinstance(origin[m], str) else origin[m][name]
            for m, name in zip(("text", "image"), setting.encoders, strict=True)
        }

    with contextlib.ExitStack() as stack:
        advance: Any = None

        def start(done: int, wanted: int) -> None:
            nonlocal advance, done_before
            done_before = done
            count = len(set(titles))
            say(
                f"{len(table)} cells of {count} settings, {len(how.units)} trainings each: "
                f"{wanted} in all, {done} there already."
            )
            if done < wanted:
                advance = stack.enter_context(progress("ablation", wanted, "trainings", done))

        outcome = ablation.run(
            [cell.setting for cell in table],
            how,
            ready["source"],
            ready["labels"],
            names=ready["names"],
            features=features,
            shelf=shelf,
            metric=metric,
            devices=devices,
            on_start=start,
            on_done=lambda setting: advance(1, titles[setting]),
        )
    return outcome, done_before


def format_ablation(record: dict[str, Any], axes: Sequence[str]) -> str:
    """The table as a person reads it."""
    header, rows = _cells(record, axes)
    return "\n".join([format_table(header, rows), "", _method(record)])


def _cells(record: dict[str, Any], axes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    names = list(record["judged"])
    header = [*axes]
    for title in _FIGURES.values():
        header += [title, "95 %"]
    header += ["Δ macro-F1", "95 %", *(f"recall {name}" for name in names)]
    rows = []
    for cell in record["cells"]:
        row = [cell["labels"][axis] for axis in axes]
        for key in _FIGURES:
            row += [_plus_minus(cell[key]), f"{cell[key]['low']:.3f} … {cell[key]['high']:.3f}"]
        change = cell["change"]["macro_f1"]
        row += [f"{change['mean']:+.4f}", f"{change['low']:+.3f} … {change['high']:+.3f}"]
        rows.append([*row, *(_plus_minus(cell["recall"][name]) for name in names)])
    return header, rows


def _plus_minus(figure: dict[str, Any]) -> str:
    deviation = figure["deviation"]
    return f"{figure['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _method(record: dict[str, Any]) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in record["judged"].items())
    return (
        f"Mean of {record['members']} training(s) ± deviation of single ones, on "
        f"{sum(record['judged'].values())} rows ({rows}; outer split {record['outer']}). "
        f"Intervals of the mean from {record['resamples']} resamples of these rows, Δ against the "
        "first line on the same resamples; they do not hold the chance of training again."
    )


def _csv(record: dict[str, Any]) -> str:
    """A line a cell, every figure with mean, deviation and interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "deviation", "low", "high")
    keys = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
    names = list(record["judged"])
    titles = [*keys, *(f"recall_{name}" for name in names)]
    columns = [f"{title}_{part}" for title in titles for part in parts]
    writer.writerow([*record["axes"], "members", *columns, "parameters", "seconds"])
    for cell in record["cells"]:
        figures = [cell[key] for key in keys] + [cell["recall"][name] for name in names]
        own = [cell["labels"][axis] for axis in record["axes"]]
        values = [figure[part] for figure in figures for part in parts]
        writer.writerow([*own, cell["members"], *values, cell["parameters"], cell["seconds"]])
    return text.getvalue()


def _markdown(record: dict[str, Any]) -> str:
    from fuse.evidence.parity import markdown

    lines = [
        f"Command: `{record['command']}`",
        "",
        f"Encoders: {record['encoders']['text']} and {record['encoders']['image']}; "
        f"{record['trainings']} trainings, {record['seconds_of_trainings']:.0f} s of training.",
        "",
        *(f"Note: {note}.\n" for note in record["notes"]),
        *markdown(*_cells(record, record["axes"])),
        "",
        _method(record),
        "",
    ]
    return "\n".join(lines)


_WRITERS = {
    ".csv": _csv,
    ".md": _markdown,
    ".json": lambda record: json.dumps(record, indent=1) + "\n",
}


def _check_suffixes(out: Sequence[Path]) -> None:
    wrong = [str(path) for path in out if path.suffix not in _WRITERS]
    if wrong:
        raise SettingsError(
            f"--out {', '.join(wrong)}: the ending says what is written.",
            f"Valid: {', '.join(_WRITERS)}.",
        )
