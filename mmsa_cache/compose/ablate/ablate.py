"""``mmsa ablate``: trains every combination of some settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuse.assignments import parse_assignments
from fuse.evidence.ablation import Ablation, Outcome, raise_failures
from fuse.evidence.cells import Cell, cells, title_of
from fuse.evidence.records import AblationRecord
from fuse.evidence.tabulate import RESAMPLES, tabulate
from fuse.evidence.training_plan import TrainingPlan
from fuse.figures.confusion import Codes
from fuse.figures.records import Metric, absent_notes
from fuse.figures.study import Value
from fuse.pools import derived_names
from fuse.search.study import Choice, ListChoice, StudyConfig
from fuse.search.study_file import find_study, read_study
from fuse.setting import Setting
from mmsa_cache.console import progress, say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.source import DerivedName
from mmsa_cache.files.result_store import ResultStore
from mmsa_cache.files.results import write_result
from mmsa_cache.names import MODALITIES
from mmsa_cache.runs.directory import RUNS
from mmsa_cache.runs.folder import command_line
from mmsa_cache.validation import validate

from ..extraction.crew import EngineRequest
from ..search.workers import device_label, search_workers, training_data
from ..session.protocols import note_unused_val, resolve_protocol
from ..session.session import Session
from .table import WRITERS, format_ablation

SHELF = RUNS / ".ablation"
"""Folder of finished trainings, which later ablations reuse."""


@dataclass(frozen=True, slots=True)
class AblationRequest:
    """Options of ``mmsa ablate``."""

    axes: Sequence[str]
    """Each ``key=value,value``; the first changes slowest."""
    study: str | None = None
    """Study file whose lists become axes too, and whose fixed values apply."""
    assignments: Sequence[str] = ()
    """``key=value`` that apply to all cells."""
    outer: str | None = None
    """As the next two, see `mmsa_cache.data.protocol.Protocol`; None: as the study."""
    folds: int | None = None
    seeds: int | None = None
    stop: str = "held-out"
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Engine and number of workers; None: see `worker_devices`."""
    out: Sequence[Path] = ()
    """Files for the table, ``.csv``, ``.md`` or ``.json``."""


@dataclass(frozen=True, slots=True)
class TrainedCells:
    """The results of an ablation's cells."""

    record: AblationRecord
    outcome: Outcome
    labels: Codes
    """Class codes of the outer rows."""
    groups: Codes
    """Duplicate groups of the outer rows."""


def ablate(session: Session, request: AblationRequest) -> AblationRecord:
    """Trains every combination of some axes and scores each.

    Raises:
        SettingsError: Wrong axes, values or flags, all at once.
    """
    _check_suffixes(request.out)
    study = _make_study(request, session.settings.seed).resolved(session.pools)
    table = cells(study, list(study.space))
    protocol = resolve_protocol(session, study.protocol, folds_given=request.folds is not None)
    note_unused_val(session, request.outer, protocol)
    record = train_cells(session, table, protocol, study.metric, request.engine).record
    for path in request.out:
        write_result(path, WRITERS[path.suffix](record))
    return record


def _make_study(request: AblationRequest, seed: int) -> StudyConfig:
    """A study whose space is the axes.

    Raises:
        SettingsError: With all problems at once.
    """
    default = StudyConfig(name="ablation", protocol=Protocol(seed=seed))
    base = read_study(find_study(request.study), seed) if request.study else default
    problems: list[str] = []
    axes = _parse_axes(request.axes, problems)
    fixed: dict[str, Value] = {}
    try:
        fixed = parse_assignments(list(request.assignments))
    except SettingsError as error:
        problems += error.problems
    problems += [f"{key}: an axis and --set" for key in fixed if key in axes]
    if problems:
        raise SettingsError("These axes cannot be used.", "Correct them all.", problems)
    space = {key: choice for key, choice in base.space.items() if key not in fixed} | axes
    if not space:
        raise SettingsError(
            "There is nothing to compare.", "Give --axis KEY=VALUE,VALUE, or --study NAME."
        )
    flags = {"outer": request.outer, "folds": request.folds, "seeds": request.seeds}
    changes = {key: value for key, value in flags.items() if value is not None}
    protocol = base.protocol.model_dump() | changes | {"stop": request.stop}
    return base.model_copy(
        update={
            "protocol": validate(Protocol, protocol, "This protocol cannot be followed."),
            "metric": fixed.pop("metric", base.metric),
            "space": space,
            "fixed": {k: v for k, v in base.fixed.items() if k not in axes} | fixed,
        }
    )


def _parse_axes(axes: Sequence[str], problems: list[str]) -> dict[str, Choice]:
    """Parses ``key=value,value``; appends to ``problems`` what is wrong."""
    choices: dict[str, Choice] = {}
    for axis in axes:
        key, sign, texts = axis.partition("=")
        if not sign:
            problems.append(f"{axis}: write KEY=VALUE,VALUE")
            continue
        if key in choices:
            problems.append(f"{key}: stands twice")
        try:
            values = [parse_assignments([f"{key}={text}"])[key] for text in texts.split(",")]
        except SettingsError as error:
            problems += error.problems
            continue
        if len(set(values)) < len(values):
            problems.append(f"{key}: a value stands twice")
        choices[key] = ListChoice(values=values)
    return choices


def train_cells(
    session: Session,
    table: Sequence[Cell],
    protocol: Protocol,
    metric: Metric,
    engine: EngineRequest,
) -> TrainedCells:
    """Trains the cells; trainings that are on the shelf are reused.

    Raises:
        MmsaError: A cell cannot be trained.
    """
    settings = list(dict.fromkeys(cell.setting for cell in table))
    pairs = list(dict.fromkeys(setting.encoders for setting in settings))
    shelf = ResultStore(SHELF)
    started = time.monotonic()
    with (
        search_workers(session, engine) as workers,
        training_data(session, protocol.split, pairs, _derived_names(settings), RUNS) as data,
        shelf.exclusive(),
    ):
        trainings = TrainingPlan.of(protocol, data.labels, data.groups)
        ablation = Ablation(settings, trainings, data, shelf, metric, workers)
        total, done_before = len(ablation.planned), len(ablation.finished)
        say(
            f"{len(table)} cells of {len(settings)} settings, {len(trainings.splits)} trainings "
            f"each: {total} in all, {done_before} there already."
        )
        titles = {cell.setting: title_of(cell) for cell in reversed(table)}
        with progress("ablation", total, "trainings", done_before) as advance:
            outcome = ablation.run(lambda setting: advance(1, titles[setting]))
    labels, groups = data.labels[trainings.rows], data.groups[trainings.rows]
    classes = data.origin.classes
    counts = {name: int(np.count_nonzero(labels == code)) for code, name in enumerate(classes)}
    seconds = sum(t.seconds for of_setting in outcome.trainings.values() for t in of_setting)
    record = AblationRecord(
        axes=list(table[0].labels),
        cells=tabulate(table, outcome, labels, classes, groups=groups),
        judged=counts,
        protocol=protocol,
        members=trainings.members,
        metric=metric,
        resamples=RESAMPLES,
        encoders=session.encoder_labels(pairs),
        command=command_line(),
        workers=len(workers.devices),
        device=device_label(workers, engine),
        trainings=total,
        done_before=done_before,
        seconds=round(time.monotonic() - started, 1),
        seconds_of_trainings=round(seconds, 1),
        notes=session.notes(pairs) + absent_notes([n for n, rows in counts.items() if not rows]),
    )
    if outcome.failures:
        say(format_ablation(record))
        raise_failures(outcome, table)
    return TrainedCells(record, outcome, labels, groups)


def _derived_names(settings: Sequence[Setting]) -> list[DerivedName]:
    """Names of the derived features that settings read."""
    return [
        name
        for setting in settings
        for modality in MODALITIES
        for name in derived_names(
            modality,
            [getattr(setting, f"{modality}_encoder")],
            [getattr(setting, f"{modality}_pool")],
            [setting.grid],
        )
    ]


def _check_suffixes(out: Sequence[Path]) -> None:
    wrong = [str(path) for path in out if path.suffix not in WRITERS]
    if wrong:
        raise SettingsError(
            f"--out {', '.join(wrong)}: the ending says what is written.",
            f"Valid: {', '.join(WRITERS)}.",
        )
