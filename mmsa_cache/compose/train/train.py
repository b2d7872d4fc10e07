"""``mmsa train``: a run directory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.torch import save

from fuse.figures.calibration import Decide
from fuse.figures.predictions import Predictions
from fuse.figures.records import EpochRecord, RunFigures, absent_notes
from fuse.figures.study import Value
from fuse.search.snapshot import snapshot
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import input_dims
from fuse.training.final import Trained, count_members
from fuse.training.final import train as train_final
from fuse.training.plan import plan_parts
from fuse.training.recipe import WeightedSetting, weighted_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.disk import write_atomically
from mmsa_cache.json_value import JsonObject
from mmsa_cache.runs.directory import CHECKPOINT, RUNS, new_run
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder
from mmsa_cache.runs.json_lines import JsonLines, log_run
from mmsa_cache.runs.record import Environment, RunIdentity, RunRecord, TrainedModel
from mmsa_cache.runs.trackers import Place
from mmsa_cache.runs.tracking import Tracking, check_trackers, scalars, tracking
from mmsa_cache.validation import validate

from ..predict.predictor import portable_path
from ..report.report import PAGE, compose_page
from ..report.rivals import latest_rival
from ..search.studies import studies_database
from ..session.origin import origin_of
from ..session.path_policy import ENCODER_PATHS
from ..session.protocols import note_unused_val
from ..session.session import Session
from .choose import Choice, choose_settings
from .nested import beside_baselines, choose_nested
from .request import TrainRequest


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that was trained."""

    run: str
    directory: Path
    notes: list[str]
    figures: RunFigures

    def as_json(self) -> JsonObject:
        """The figures beside ``run``, ``directory`` and ``notes``."""
        named = {"run": self.run, "directory": str(self.directory), "notes": self.notes}
        return {**named, **self.figures.as_json()}


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
    groups = session.groups(protocol.split)
    codes = bank.labels.cpu().numpy()
    parts = plan_parts(codes, groups, protocol)
    refit = request.refit
    if refit is None:
        refit = bool(choice.ensembles) and request.averaged
    identity = RunIdentity(
        models=[
            _model(weighted, len(parts), bank)
            for weighted in weighted_settings(choice.recipes, len(parts))
        ],
        protocol=protocol,
        averaged=request.averaged,
        refit=refit,
        origin=origin_of(session, pairs, protocol.split),
    )
    notes = session.notes(pairs) + choice.seen(protocol, session)
    learned = {code for part in parts for code in codes[part.development].tolist()}
    unknown = [name for code, name in enumerate(session.classes) if code not in learned]
    notes += absent_notes(unknown, "training")
    if not refit:
        choice = replace(choice, held_out={})
    trained = identity.as_json() | {"held out before": len(choice.held_out)}
    with new_run(request.name, trained) as (name, path):
        kept = _kept(session.completed_settings(pairs), session.classes, RUNS / name)
        labels = session.encoder_labels(pairs)
        place = Place(name, path / "tensorboard", _parameters(identity, labels))
        with tracking(request.track, place) as tracked:
            final = _train(choice, request.decide, bank, session, identity, name, path, tracked)
        notes += _beside_trial(choice, request, protocol, final.figures)
        record = RunRecord(
            **dict(identity),
            settings=kept,
            classes=list(session.classes),
            encoders={m: dict(named) for m, named in session.identities(pairs).items()},
            notes=[*notes],
            calibration=final.ensemble.calibration,
            decide=request.decide,
            studies=choice.sources,
        )
        _write(RunFolder(path), name, record, final, session, bank, request.command)
    log_run("train", name, round(time.monotonic() - started, 1), scalars(final.figures.as_json()))
    notes += absent_notes(final.figures.outer.absent)  # figures tell it, the record need not
    return TrainedRun(name, RUNS / name, notes, final.figures)


def _beside_trial(
    choice: Choice, request: TrainRequest, protocol: Protocol, figures: RunFigures
) -> list[str]:
    """Says whether the folds' members score what the trial of a search scored, else why not."""
    if len(choice.settings) > 1 or not choice.searched or choice.ensembles:
        return []
    source, study = choice.sources[0], choice.searched[0]
    inner = float(np.mean([getattr(member, study.metric) for member in figures.members]))
    said = f"inner {study.metric} of the members {inner:.4f}, of trial {source.trial} "
    said += f"{source.score:.4f}"
    if source.score is not None and abs(inner - source.score) < 5e-5:  # four digits
        say(f"{said}.")
        return []
    reasons = [f"{key} {value}" for key, value in request.changes.items()]
    reasons += [
        f"{key} {getattr(protocol, key)} in place of {getattr(study.protocol, key)}"
        for key in ("outer", "folds", "seeds", "seed")
        if getattr(protocol, key) != getattr(study.protocol, key)
    ]
    return [f"{said}: {'; '.join(reasons) or 'searched on another device or by another version'}"]


def _model(weighted: WeightedSetting, parts: int, bank: FeatureBank) -> TrainedModel:
    """One setting of the run, as its record keeps it."""
    return TrainedModel(
        setting=asdict(weighted.setting),
        dims=input_dims(bank, weighted.setting),
        weight=weighted.weight,
        parts=None if len(weighted.parts) == parts else [place + 1 for place in weighted.parts],
    )


def _train(
    choice: Choice,
    decide: Decide,
    bank: FeatureBank,
    session: Session,
    identity: RunIdentity,
    name: str,
    path: Path,
    tracked: Tracking,
) -> Trained:
    """Trains the members and records their epochs; resumes from a checkpoint in the folder."""
    protocol = identity.protocol
    groups = session.groups(protocol.split)
    counts = count_members(
        choice.recipes,
        plan_parts(bank.labels.cpu().numpy(), groups, protocol),
        protocol,
        averaged=identity.averaged,
        refit=identity.refit,
        held_out=choice.held_out,
    )
    members = sum(count for _, count in counts)
    epochs = sum(setting.epochs * count for setting, count in counts)
    lines = JsonLines(path / "metrics.jsonl", fresh=True)
    checkpoint = FolderCheckpoint(path / CHECKPOINT)

    def keep(record: EpochRecord) -> None:
        _append(lines, record, record.macro_f1 is not None)
        values = record.model_dump(exclude={"member", "epoch"})
        tracked.log(f"member-{record.member}", record.epoch, values)

    with progress(f"run {name}", epochs, "epochs") as advance:

        def on_epoch(record: EpochRecord) -> None:
            keep(record)
            score = "" if record.macro_f1 is None else f", macro-F1 {record.macro_f1:.4f}"
            advance(1, f"member {record.member} of {members}{score}")

        if (path / CHECKPOINT).is_dir():
            say("Going on from what an interrupted run of the same left.")
            for record in checkpoint.records():
                keep(record)
        final = train_final(
            choice.recipes,
            bank,
            groups,
            protocol,
            names=session.classes,
            decide=decide,
            averaged=identity.averaged,
            refit=identity.refit,
            held_out=choice.held_out,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
        )
    beside = beside_baselines(choice, final, bank, session)
    changes = {"ensembles": choice.ensembles, "baselines": beside}
    figures = final.figures.model_copy(update=changes)
    final = replace(final, figures=figures)
    tracked.final = scalars(final.figures.as_json())
    return final


def _write(
    run: RunFolder,
    name: str,
    record: RunRecord,
    final: Trained,
    session: Session,
    bank: FeatureBank,
    command: str,
) -> None:
    """Writes every file of the run."""
    # Written anew in the order of members, which a stack or a resumed run did not keep.
    lines = JsonLines(run.path / "metrics.jsonl", fresh=True)
    of_folds = {member.member for member in final.figures.members}
    for fit in final.fits:
        for epoch in fit.history:
            _append(lines, epoch, epoch.member in of_folds)
    lines.append("final", figures=scalars(final.figures.as_json()))
    write_atomically(run.path / MODEL_FILE, save(final.ensemble.tensors()))
    run.write(
        record,
        final.figures,
        Environment.here(str(bank.labels.device)),
        [
            snapshot(source.name, source.trial, studies_database(session.settings))
            for source in record.studies
            if source.trial is not None
        ],
        Predictions(
            [bank.guids[row] for row in final.outer.tolist()],
            bank.labels.cpu().numpy()[final.outer],
            final.predicted[record.decide],
            final.probabilities,
            session.groups(record.protocol.split)[final.outer],
            final.predicted,
        ),
        command,
    )
    page = compose_page(run, name, session, final.ensemble, bank, latest_rival(run))
    write_atomically(run.path / PAGE, page.html.encode())


def _append(lines: JsonLines, record: EpochRecord, is_of_folds: bool) -> None:
    """Members of the folds have an ``epoch``; the others only calibrate, or learn from all rows."""
    other = "refit" if record.macro_f1 is None else "calibration"
    lines.append("epoch" if is_of_folds else other, **record.as_json())


def _parameters(identity: RunIdentity, encoders: Mapping[str, str]) -> dict[str, Value]:
    """What trackers show of a run: plain values, those of a second setting as ``2.KEY``."""
    found: dict[str, Value] = {"averaged": identity.averaged, "refit": identity.refit}
    found |= identity.protocol.model_dump(include={"outer", "folds", "seeds", "seed"})
    found |= {f"{modality}_encoder": label for modality, label in encoders.items()}
    for number, model in enumerate(identity.models, start=1):
        start = f"{number}." if number > 1 else ""
        found |= {f"{start}{key}": value for key, value in model.setting.items()}
    return found


def _kept(settings: Settings, classes: tuple[str, ...], run: Path) -> Settings:
    """Settings as a run keeps them: what is in the working folder they find when it is moved.

    Raises:
        SettingsError: They could not be read again.
    """
    root = settings.data.root
    data = {"root": None if root is None else portable_path(root, run), "classes": classes}
    cache = {"dir": portable_path(settings.cache.dir, run)}
    changes: dict[str, Mapping[str, object]] = {"data": data, "cache": cache}
    for section, key in ENCODER_PATHS:  # of encoders
        value = getattr(getattr(settings, section), key)
        if value is not None and Path(value).is_absolute():
            changes[section] = {key: str(portable_path(Path(value), run))}
    found = settings.model_copy(
        update={
            section: getattr(settings, section).model_copy(update=values)
            for section, values in changes.items()
        }
    )
    message = "A run with these settings could not be read again:"
    validate(Settings, found.model_dump(mode="json"), message)
    return found
