"""``mmsa ablate``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuse.assignments import parse_assignments
from fuse.evidence.ablation import Ablation, Outcome, check
from fuse.evidence.cells import Cell, cells, title_of
from fuse.evidence.records import AblationRecord
from fuse.evidence.tabulate import RESAMPLES, tabulate
from fuse.evidence.trainings import Codes, Trainings
from fuse.figures.records import Metric, absent_notes
from fuse.figures.study import Value
from fuse.search.study import Choice, ListChoice, StudyConfig
from fuse.search.study_file import find_study, read_study
from mmsa_cache.console import progress, say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.results import write_result
from mmsa_cache.files.shelf import Shelf
from mmsa_cache.runs.directory import RUNS
from mmsa_cache.runs.folder import command_line
from mmsa_cache.validation import validate

from ..extraction.crew import EngineRequest
from ..search.workers import device_label, search_workers, training_data
from ..session.protocols import note_unused_val, resolve_protocol
from ..session.session import Session
from .table import WRITERS, format_ablation

SHELF = RUNS / ".ablation"
"""Where finished trainings lie; the same training is never run twice."""


@dataclass(frozen=True, slots=True)
class AblationRequest:
    """What ``mmsa ablate`` is asked for."""

    axes: Sequence[str]
    """Each ``key=value,value``; the first changes slowest."""
    study: str | None = None
    """A study file whose lists are axes too, and whose fixed values hold."""
    assignments: Sequence[str] = ()
    """``key=value`` that hold for all."""
    outer: str | None = None
    """As the next two, see `mmsa_cache.data.protocol.Protocol`; None takes the study's."""
    folds: int | None = None
    seeds: int | None = None
    stop: str = "held-out"
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Its workers; None: see `worker_devices`."""
    out: Sequence[Path] = ()
    """Files for the table, ``.csv``, ``.md`` or ``.json``."""


@dataclass(frozen=True, slots=True)
class TrainedCells:
    """The cells of an ablation, trained."""

    record: AblationRecord
    outcome: Outcome
    labels: Codes
    """Class codes of the judged rows."""
    groups: Codes
    """Duplicate groups of the judged rows."""


def ablate(session: Session, request: AblationRequest) -> AblationRecord:
    """Trains every combination of some axes and says what each is worth.

    Raises:
        SettingsError: Wrong axes, values or flags, all at once.
    """
    _check_suffixes(request.out)
    study = _study_of(request, session.settings.seed).resolved(session.pools)
    table = cells(study, list(study.space))
    protocol = resolve_protocol(session, study.protocol, folds_given=request.folds is not None)
    note_unused_val(session, request.outer, protocol)
    record = train_cells(session, table, protocol, study.metric, request.engine).record
    for path in request.out:
        write_result(path, WRITERS[path.suffix](record))
    return record


def _study_of(request: AblationRequest, seed: int) -> StudyConfig:
    """A study whose space is the axes.

    Raises:
        SettingsError: With every mistake at once.
    """
    default = StudyConfig(name="ablation", protocol=Protocol(seed=seed))
    base = read_study(find_study(request.study), seed) if request.study else default
    problems: list[str] = []
    axes: dict[str, Choice] = {}
    for axis in request.axes:
        key, sign, listed = axis.partition("=")
        if not sign:
            problems.append(f"{axis}: write KEY=VALUE,VALUE")
            continue
        if key in axes:
            problems.append(f"{key}: stands twice")
        try:
            values: list[Value] = [
                parse_assignments([f"{key}={value}"])[key] for value in listed.split(",")
            ]
        except SettingsError as error:
            problems += error.problems
            continue
        if len(set(values)) < len(values):
            problems.append(f"{key}: a value stands twice")
        axes[key] = ListChoice(values=values)
    changes: dict[str, Value] = {}
    try:
        changes = parse_assignments(list(request.assignments))
    except SettingsError as error:
        problems += error.problems
    problems += [f"{key}: an axis and --set" for key in changes if key in axes]
    if problems:
        raise SettingsError("These axes cannot be used.", "Correct them all.", problems)
    space = {key: choice for key, choice in base.space.items() if key not in changes} | axes
    if not space:
        raise SettingsError(
            "There is nothing to compare.", "Give --axis KEY=VALUE,VALUE, or --study NAME."
        )
    flags = {"outer": request.outer, "folds": request.folds, "seeds": request.seeds}
    given = {key: value for key, value in flags.items() if value is not None}
    protocol = base.protocol.model_dump() | given | {"stop": request.stop}
    metric = changes.pop("metric", base.metric)
    fixed = {key: value for key, value in base.fixed.items() if key not in axes} | changes
    return base.model_copy(
        update={
            "protocol": validate(Protocol, protocol, "This protocol cannot be followed."),
            "metric": metric,
            "space": space,
            "fixed": fixed,
        }
    )


def train_cells(
    session: Session,
    table: Sequence[Cell],
    protocol: Protocol,
    metric: Metric,
    engine: EngineRequest,
) -> TrainedCells:
    """Trains what is missing of some cells.

    Raises:
        MmsaError: A cell cannot be trained.
    """
    settings = list(dict.fromkeys(cell.setting for cell in table))
    pairs = list(dict.fromkeys(setting.encoders for setting in settings))
    grids = {setting.grid for setting in settings}
    shelf = Shelf(SHELF)
    started = time.monotonic()
    with (
        search_workers(session, engine) as workers,
        training_data(session, protocol.split, pairs, grids, RUNS) as data,
        shelf.exclusive(),
    ):
        how = Trainings.of(protocol, data.labels, data.groups)
        trainings = Ablation(settings, how, data, shelf, metric, workers)
        wanted, done_before = len(trainings.wanted), len(trainings.done)
        say(
            f"{len(table)} cells of {len(settings)} settings, {len(how.units)} trainings each: "
            f"{wanted} in all, {done_before} there already."
        )
        titles = {cell.setting: title_of(cell) for cell in reversed(table)}
        with progress("ablation", wanted, "trainings", done_before) as advance:
            outcome = trainings.run(lambda setting: advance(1, titles[setting]))
    judged, groups = data.labels[how.rows], data.groups[how.rows]
    names = data.origin.classes
    counts = {name: int(np.count_nonzero(judged == code)) for code, name in enumerate(names)}
    seconds = sum(training.seconds for of in outcome.trainings.values() for training in of)
    record = AblationRecord(
        axes=list(table[0].labels),
        cells=tabulate(table, outcome, judged, names, groups=groups),
        judged=counts,
        protocol=protocol,
        members=how.members,
        metric=metric,
        resamples=RESAMPLES,
        encoders=session.encoder_labels(pairs),
        command=command_line(),
        workers=len(workers.devices),
        device=device_label(workers, engine),
        trainings=wanted,
        done_before=done_before,
        seconds=round(time.monotonic() - started, 1),
        seconds_of_trainings=round(seconds, 1),
        notes=session.notes(pairs) + absent_notes([n for n, rows in counts.items() if not rows]),
    )
    if outcome.failures:
        say(format_ablation(record))
        check(outcome, table)
    return TrainedCells(record, outcome, judged, groups)


def _check_suffixes(out: Sequence[Path]) -> None:
    wrong = [str(path) for path in out if path.suffix not in WRITERS]
    if wrong:
        raise SettingsError(
            f"--out {', '.join(wrong)}: the ending says what is written.",
            f"Valid: {', '.join(WRITERS)}.",
        )
