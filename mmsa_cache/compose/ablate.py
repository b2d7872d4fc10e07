"""``mmsa ablate``."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from fuse.evidence import ablation
from fuse.evidence.cells import Cell, cells, title_of
from fuse.evidence.tabulate import RESAMPLES, tabulate
from fuse.evidence.trainings import Trainings
from fuse.figures.records import Metric
from fuse.search.space import Study, value_problem
from fuse.search.study_file import find_study, read_study
from fuse.setting import Setting, parse
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import Advance, progress, say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import SettingsError
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.runs.directory import RUNS
from mmsa_cache.shelf import Shelf
from mmsa_cache.validation import validated

from .ablation_table import WRITERS, format_ablation
from .encoders import joined_labels, notes_of
from .workers import devices_of, prepared

SHELF = RUNS / ".ablation"
"""Where finished trainings lie; the same training is never run twice."""
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
        stop: See `mmsa_cache.data.protocol.Protocol`.
        workers: Worker processes; None takes one a usable core, or one a GPU.
        out: Files for the table, ``.csv``, ``.md`` or ``.json``.

    Returns:
        ``axes``, ``cells`` (see `tabulate`), how they came about, and ``notes``.

    Raises:
        SettingsError: Wrong axes, values or flags, all at once.
    """
    _check_suffixes(out)
    plan = _plan(axes, study, assignments)
    given = {"outer": outer, "folds": folds, "seeds": seeds}
    basis = asdict(plan) if study else _DEFAULTS
    how: dict[str, Any] = {
        key: basis[key] if value is None else value for key, value in given.items()
    }
    table = cells(plan, list(plan.space))
    record, _ = train_cells(settings, table, plan.metric, stop=stop, workers=workers, **how)
    record = {"axes": list(plan.space), **record}
    for path in out:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, WRITERS[path.suffix](record).encode())
    return record


def _plan(axes: Sequence[str], study: str | None, assignments: Sequence[str]) -> Study:
    """A study whose space is the axes.

    Raises:
        SettingsError: With every mistake at once.
    """
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


def train_cells(
    settings: Settings,
    table: Sequence[Cell],
    metric: Metric,
    *,
    outer: str,
    folds: int,
    seeds: int,
    stop: str,
    workers: int | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains what is missing; the record, and what it was made of."""
    chosen = [cell.setting for cell in table]
    pairs = list(dict.fromkeys(setting.encoders for setting in chosen))
    devices = devices_of(settings.device, workers)
    shelf = Shelf(SHELF)
    started = time.monotonic()
    values = {"outer": outer, "folds": folds, "seeds": seeds, "seed": settings.seed, "stop": stop}
    protocol = validated(Protocol, values, "This protocol cannot be followed.")
    with (
        prepared(settings, pairs, {setting.grid for setting in chosen}, RUNS) as ready,
        shelf.exclusive(),
    ):
        labels = ready["labels"]
        how = Trainings.of(protocol, labels, ready["groups"])
        outcome, done_before = _train(table, how, ready, shelf, metric, devices)
    judged = labels[how.rows]
    record = {
        "cells": tabulate(table, outcome, judged, ready["names"]),
        "judged": {
            name: int(np.count_nonzero(judged == code)) for code, name in enumerate(ready["names"])
        },
        "outer": outer,
        "folds": folds,
        "seeds": seeds,
        "members": how.members,
        "stop": stop,
        "metric": metric,
        "resamples": RESAMPLES,
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
    table: Sequence[Cell],
    how: Trainings,
    ready: dict[str, Any],
    shelf: Shelf,
    metric: Metric,
    devices: list[str],
) -> tuple[ablation.Outcome, int]:
    """The outcome, and how many trainings there were already."""
    origin = ready["origin"]
    titles = {cell.setting: title_of(cell) for cell in reversed(table)}
    done_before = 0

    def features(setting: Setting) -> dict[str, str]:
        return {
            m: origin[m] if isinstance(origin[m], str) else origin[m][name]
            for m, name in zip(("text", "image"), setting.encoders, strict=True)
        }

    with contextlib.ExitStack() as stack:
        shown: list[Advance] = []

        def start(done: int, wanted: int) -> None:
            nonlocal done_before
            done_before = done
            count = len(set(titles))
            say(
                f"{len(table)} cells of {count} settings, {len(how.units)} trainings each: "
                f"{wanted} in all, {done} there already."
            )
            if done < wanted:
                shown.append(stack.enter_context(progress("ablation", wanted, "trainings", done)))

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
            on_done=lambda setting: shown[0](1, titles[setting]),
        )
    return outcome, done_before


def _check_suffixes(out: Sequence[Path]) -> None:
    wrong = [str(path) for path in out if path.suffix not in WRITERS]
    if wrong:
        raise SettingsError(
            f"--out {', '.join(wrong)}: the ending says what is written.",
            f"Valid: {', '.join(WRITERS)}.",
        )
