"""``mmsa train``: a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fuse.figures.records import EpochRecord, RunFigures, absent_notes
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import input_dims
from fuse.training.final import Trained, count_members
from fuse.training.final import train as train_final
from fuse.training.plan import plan_parts
from fuse.training.recipe import WeightedSetting, weighted_settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.json_value import JsonObject
from mmsa_cache.runs.directory import CHECKPOINT, RUNS, new_run
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.json_lines import JsonLines, log_run
from mmsa_cache.runs.record import RunIdentity, RunRecord, TrainedModel
from mmsa_cache.runs.trackers import TrackedRun
from mmsa_cache.runs.tracking import Tracking, check_trackers, flatten_scalars, tracking

from ..session.origin import origin_of
from ..session.protocols import note_unused_val
from ..session.session import Session
from .choice import ChosenRecipes
from .choose import choose_settings
from .nested import choose_nested, compare_with_baselines
from .request import TrainRequest
from .run_files import METRICS, append_epoch, portable_settings, tracker_parameters, write_run


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that was trained."""

    run: str
    directory: Path
    notes: list[str]
    figures: RunFigures

    def as_json(self) -> JsonObject:
        """The figures beside ``run``, ``directory`` and ``notes``."""
        values = {"run": self.run, "directory": str(self.directory), "notes": self.notes}
        return {**values, **self.figures.as_json()}


def train(session: Session, request: TrainRequest) -> TrainedRun:
    """Trains the members of one setting or of several and writes a run directory.

    Raises:
        SettingsError: An option or a setting cannot be used, or the run's name is taken.
        CacheNotFoundError: The training split was not extracted.
    """
    check_trackers(request.track)
    started = time.monotonic()
    choice = (choose_nested if request.nested else choose_settings)(request, session)
    pairs = list(dict.fromkeys(setting.encoders for setting in choice.settings))
    protocol = request.protocol(choice.protocol, session)
    if not choice.searched:
        note_unused_val(session, request.outer, protocol)
    bank = session.bank(protocol.split, pairs).to(session.device)
    codes = bank.labels.cpu().numpy()
    parts = plan_parts(codes, session.groups(protocol.split), protocol)
    # Models solved to their optimum differ in their rows alone: their average has none of all.
    is_solved = all(setting.optimiser == "lbfgs" for setting in choice.settings)
    default_refit = request.averaged and (bool(choice.ensembles) or is_solved)
    refit = default_refit if request.refit is None else request.refit
    identity = RunIdentity(
        models=[
            _trained_model(weighted, len(parts), bank)
            for weighted in weighted_settings(choice.recipes, len(parts))
        ],
        protocol=protocol,
        averaged=request.averaged,
        refit=refit,
        origin=origin_of(session, pairs, protocol.split),
    )
    learned = {code for part in parts for code in codes[part.development].tolist()}
    unknown = [name for code, name in enumerate(session.classes) if code not in learned]
    notes = session.notes(pairs) + choice.leakage_notes(protocol, session)
    notes += absent_notes(unknown, "training")
    if not refit:
        choice = replace(choice, held_out={})
    resumable = identity.as_json() | {"held out before": len(choice.held_out)}
    with new_run(request.name, resumable) as (name, path):
        completed = session.completed_settings(pairs)
        settings = portable_settings(completed, session.classes, RUNS / name)
        parameters = tracker_parameters(identity, session.encoder_labels(pairs))
        tracked = TrackedRun(name, path / "tensorboard", parameters)
        with tracking(request.track, tracked) as tracker:
            trained = _train(choice, request, bank, session, identity, name, path, tracker)
        notes += _compare_with_trial(choice, request, protocol, trained.figures)
        record = RunRecord(
            **dict(identity),
            settings=settings,
            classes=list(session.classes),
            encoders={m: dict(named) for m, named in session.identities(pairs).items()},
            notes=[*notes],
            calibration=trained.ensemble.calibration,
            decide=request.decide,
            studies=choice.sources,
        )
        write_run(RunFolder(path), name, record, trained, session, bank, request.command)
    figures = trained.figures
    log_run("train", name, round(time.monotonic() - started, 1), flatten_scalars(figures.as_json()))
    notes += absent_notes(figures.outer.absent)  # the record has them in its figures
    return TrainedRun(name, RUNS / name, notes, figures)


def _compare_with_trial(
    choice: ChosenRecipes, request: TrainRequest, protocol: Protocol, figures: RunFigures
) -> list[str]:
    """Compares the inner score of the run with that of the trial it comes from.

    Returns:
        A note with the reasons where the scores differ; equal scores are only shown.
    """
    if len(choice.settings) > 1 or not choice.searched or choice.ensembles:
        return []
    source, study = choice.sources[0], choice.searched[0]
    inner = float(np.mean([getattr(member, study.metric) for member in figures.members]))
    scores = f"inner {study.metric} of the members {inner:.4f}, of trial {source.trial} "
    scores += f"{source.score:.4f}"
    if source.score is not None and abs(inner - source.score) < 5e-5:  # four digits
        say(f"{scores}.")
        return []
    reasons = [f"{key} {value}" for key, value in request.changes.items()]
    reasons += [
        f"{key} {getattr(protocol, key)} in place of {getattr(study.protocol, key)}"
        for key in ("outer", "folds", "seeds", "seed")
        if getattr(protocol, key) != getattr(study.protocol, key)
    ]
    return [f"{scores}: {'; '.join(reasons) or 'searched on another device or by another version'}"]


def _trained_model(weighted: WeightedSetting, parts: int, bank: FeatureBank) -> TrainedModel:
    """One setting of the run, as its record keeps it."""
    return TrainedModel(
        setting=asdict(weighted.setting),
        dims=input_dims(bank, weighted.setting),
        weight=weighted.weight,
        parts=None if len(weighted.parts) == parts else [index + 1 for index in weighted.parts],
    )


def _train(
    choice: ChosenRecipes,
    request: TrainRequest,
    bank: FeatureBank,
    session: Session,
    identity: RunIdentity,
    name: str,
    path: Path,
    tracker: Tracking,
) -> Trained:
    """Trains the members and records their epochs; resumes from a checkpoint in the folder."""
    groups = session.groups(identity.protocol.split)
    checkpoint = FolderCheckpoint(path / CHECKPOINT)
    counts = count_members(
        choice.recipes,
        plan_parts(bank.labels.cpu().numpy(), groups, identity.protocol),
        identity.protocol,
        averaged=identity.averaged,
        refit=identity.refit,
        held_out=choice.held_out,
    )
    record_epoch = _epoch_recorder(path, tracker)
    if (path / CHECKPOINT).is_dir():
        say("Going on from what an interrupted run of the same left.")
        for record in checkpoint.records():
            record_epoch(record)
    epochs = sum(setting.epochs * count for setting, count in counts)
    members = sum(count for _, count in counts)
    with progress(f"run {name}", epochs, "epochs") as advance:

        def on_epoch(record: EpochRecord) -> None:
            record_epoch(record)
            score = "" if record.macro_f1 is None else f", macro-F1 {record.macro_f1:.4f}"
            advance(1, f"member {record.member} of {members}{score}")

        trained = train_final(
            choice.recipes,
            bank,
            groups,
            identity.protocol,
            names=session.classes,
            decide=request.decide,
            averaged=identity.averaged,
            refit=identity.refit,
            held_out=choice.held_out,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
        )
    baselines = compare_with_baselines(choice, trained, bank, session)
    changes = {"ensembles": choice.ensembles, "baselines": baselines}
    figures = trained.figures.model_copy(update=changes)
    tracker.final = flatten_scalars(figures.as_json())
    return replace(trained, figures=figures)


def _epoch_recorder(path: Path, tracker: Tracking) -> Callable[[EpochRecord], None]:
    """A function that writes an epoch to ``metrics.jsonl`` and to the trackers."""
    lines = JsonLines(path / METRICS, fresh=True)

    def record_epoch(record: EpochRecord) -> None:
        append_epoch(lines, record, of_fold=record.macro_f1 is not None)
        values = record.model_dump(exclude={"member", "epoch"})
        tracker.log(f"member-{record.member}", record.epoch, values)

    return record_epoch
