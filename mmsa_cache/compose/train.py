"""``mmsa train``: a run directory."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from fuse.figures.records import EpochRecord
from fuse.search.snapshot import snapshot
from fuse.setting import Setting
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import input_dims
from fuse.training.final import Trained
from fuse.training.final import train as train_final
from fuse.training.plan import plan
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import duplicate_groups
from mmsa_cache.names import MODALITIES
from mmsa_cache.runs.directory import (
    CHECKPOINT,
    environment,
    find_run,
    new_run,
    write_command,
    write_json,
)
from mmsa_cache.runs.json_lines import JsonLines, log_run
from mmsa_cache.runs.trackers import Place
from mmsa_cache.runs.tracking import check_trackers, scalars, tracking
from mmsa_cache.store.identity import Origin

from .choose import choose_settings
from .encoders import fields_of, joined_labels, notes_of
from .locate import origins_here
from .report.report import compose
from .report.run_files import STUDIES
from .samples import load_samples
from .training_split import features_of


def train(
    settings: Settings,
    studies: Sequence[str],
    name: str | None,
    folds: int,
    *,
    seeds: int = 1,
    averaged: bool = True,
    refit: bool = False,
    outer: str | None = None,
    assignments: Sequence[str] = (),
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains a group of members of one setting or of several and writes a run directory.

    Args:
        settings: The command's settings.
        studies: See `choose_settings`.
        name: Name of the run.
        folds: Folds of the development rows; a member each.
        seeds: Members a fold.
        averaged: The model is the average of the members.
        refit: The model's members learn from all development rows, see `fuse.training.final.train`.
        outer: Kind of outer split; default: the study's.
        assignments: See `choose_settings`.
        track: Where it is recorded besides JSON lines, see `trackers.TRACKERS`.

    Returns:
        The run's name, directory, notes and figures.
    """
    check_trackers(track)
    started = time.monotonic()
    samples = load_samples(settings, "train")
    chosen, own_outer, sources = choose_settings(
        studies, assignments, lambda: Origin.model_validate(origins_here(settings, samples))
    )
    searched = [source for source in sources if source.trial is not None]
    pairs = list(dict.fromkeys(setting.encoders for setting in chosen))
    bank, origin = features_of(settings, samples, pairs)
    outer = outer or own_outer
    classes = origin["classes"]
    groups = duplicate_groups(samples)
    identity = {
        "models": [
            {"setting": asdict(setting), "dims": asdict(input_dims(bank, setting))}
            for setting in chosen
        ],
        "outer": outer,
        "folds": folds,
        "seeds": seeds,
        "averaged": averaged,
        "refit": refit,
        "seed": settings.seed,
        "origin": origin,
    }
    with new_run(name, identity) as (name, folder):
        kept = FolderCheckpoint(folder / CHECKPOINT)
        protocol = Protocol(outer=outer, folds=folds, seeds=seeds, seed=settings.seed)
        parts = len(plan(bank.labels.cpu().numpy(), groups, protocol))
        each = parts * seeds * (folds + refit)
        members = each * len(chosen)
        epochs = each * sum(setting.epochs for setting in chosen)
        labels = joined_labels(settings, pairs)
        place = Place(name, folder / "tensorboard", _parameters(identity, chosen, labels))
        lines = JsonLines(folder / "metrics.jsonl", fresh=True)
        with (
            tracking(track, place) as tracked,
            progress(f"run {name}", epochs, "epochs") as advance,
        ):

            def record_epoch(record: EpochRecord) -> None:
                _append_epoch(lines, record)
                tracked.log(
                    f"member-{record.member}",
                    record.epoch,
                    {k: v for k, v in record.as_json().items() if k not in ("member", "epoch")},
                )

            if (folder / CHECKPOINT).is_dir():
                say("Going on from what an interrupted run of the same left.")
                for at, history in kept.histories():
                    for record in history:
                        record_epoch(record.model_copy(update={"member": at + 1}))

            def on_epoch(record: EpochRecord) -> None:
                record_epoch(record)
                advance(1, _progress_note(record, members))

            final = train_final(
                chosen,
                bank,
                groups,
                protocol,
                names=classes,
                averaged=averaged,
                refit=refit,
                on_epoch=on_epoch,
                checkpoint=kept,
            )
            figures = final.figures.as_json()
            tracked.final = scalars(figures)
        # Written anew in the order of members, which a stack or a resumed run did not keep.
        lines = JsonLines(folder / "metrics.jsonl", fresh=True)
        for member, fit in enumerate(final.fits, start=1):
            for record in fit.history:
                _append_epoch(lines, record.model_copy(update={"member": member}))
        lines.append("final", figures=scalars(figures))
        write_json(
            folder / "config.json",
            {
                **identity,
                "settings": _absolute(settings, classes),
                "features": {modality: origin[modality] for modality in MODALITIES},
                "classes": classes,
                "encoders": labels,
                "encoder_fields": fields_of(settings, pairs),
                "notes": notes_of(settings, pairs),
                "calibration": figures["calibration"],
                "setting": asdict(chosen[0]),
                "study": searched[0].as_json() if searched else None,
                "studies": [source.as_json() for source in sources],
            },
        )
        write_json(folder / "metrics.json", figures)
        write_json(folder / "env.json", environment(str(bank.labels.device)))
        write_command(folder / "command.txt")
        _write_predictions(folder / "predictions.csv", final, samples, classes)
        save_file(final.ensemble.tensors(), folder / "model.safetensors")
        if searched:
            snapshots = [snapshot(s.name, s.trial) for s in searched if s.trial is not None]
            write_json(folder / STUDIES, [found.as_json() for found in snapshots])
        page = compose(folder, name, samples, final.ensemble, bank, settings)
        (folder / "report.html").write_text(page, encoding="utf-8")
    path = find_run(name)
    log_run("train", name, round(time.monotonic() - started, 1), scalars(figures))
    notes = notes_of(settings, pairs)
    return {"run": name, "directory": str(path), "notes": notes, **figures}


def _append_epoch(lines: JsonLines, record: EpochRecord) -> None:
    """A member of the folds is scored after each epoch; one of all rows has no rows for it."""
    lines.append("refit" if record.macro_f1 is None else "epoch", **record.as_json())


def _parameters(
    identity: dict[str, Any], chosen: Sequence[Setting], encoders: dict[str, str]
) -> dict[str, Any]:
    """What trackers show of a run: plain values, those of a second setting as ``2.KEY``."""
    names = ("outer", "folds", "seeds", "averaged", "refit", "seed")
    found = {name: identity[name] for name in names}
    found |= {f"{modality}_encoder": label for modality, label in encoders.items()}
    for number, setting in enumerate(chosen, start=1):
        start = f"{number}." if number > 1 else ""
        found |= {f"{start}{key}": value for key, value in asdict(setting).items()}
    return found


def _progress_note(record: EpochRecord, members: int) -> str:
    score = "" if record.macro_f1 is None else f", macro-F1 {record.macro_f1:.4f}"
    return f"member {record.member} of {members}{score}"


def _write_predictions(
    path: Path, final: Trained, samples: list[Sample], classes: list[str]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["guid", "tag", "predicted", *(f"p_{label}" for label in classes)])
        for index, row in zip(final.outer.tolist(), final.probabilities, strict=True):
            label = samples[index].label
            assert label is not None
            writer.writerow(
                [samples[index].guid, classes[label], classes[int(row.argmax())]]
                + [f"{p:.6f}" for p in row]
            )


def _absolute(settings: Settings, classes: list[str]) -> dict[str, Any]:
    """Settings that lead to the same data and caches from any folder."""
    stored = settings.model_dump(mode="json")
    root = settings.data.root
    stored["data"] |= {"root": None if root is None else str(root.resolve()), "classes": classes}
    stored["cache"] |= {"dir": str(settings.cache.dir.resolve())}
    return stored
