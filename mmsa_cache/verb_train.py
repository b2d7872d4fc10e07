"""``mmsa train``: a run directory of one setting."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .bank import FeatureBank
from .config import Settings
from .console import progress, say
from .dataset import Sample
from .features import MODALITIES, classes_of, load_samples
from .pipeline import notes_of, open_bank, pick_device, resolve_encoder
from .runs import environment, find_run, new_run, write_command, write_json
from .splits import duplicate_groups

DEFAULT_OUTER = "report"


def labelled(settings: Settings) -> tuple[list[Sample], FeatureBank, dict[str, Any]]:
    """The training split's samples and features, and what identifies those features."""
    samples = load_samples(settings, "train")
    bank = open_bank(settings, "train", samples).to(pick_device(settings.device))
    origin = {"text": Path(bank.text.name).name, "image": Path(bank.image.name).name}
    return samples, bank, origin | {"classes": list(classes_of(settings))}


def choose_setting(
    study_name: str | None, assignments: list[str], origin: dict[str, Any]
) -> tuple[Any, str, dict[str, Any] | None]:
    """The setting to train, its outer split, and the trial that it comes from.

    Args:
        study_name: A study (``NAME`` or ``NAME:TRIAL``), ``best`` of all, or None: the defaults. A
            study file without a space is one setting and needs no search.
        assignments: ``key=value``, over what the study says.
        origin: What the features are.
    """
    from fuse import search as engine
    from fuse.setting import Setting, parse

    setting, outer = Setting(), DEFAULT_OUTER
    source: dict[str, Any] | None = None
    if study_name is not None:
        study = None if study_name == "best" or ":" in study_name else _fixed_study(study_name)
        if study is not None:
            setting, outer = Setting(**study.fixed, metric=study.metric), study.outer
            source = {"name": study_name, "trial": None, "score": None}
        else:
            chosen, study = engine.choose(study_name, origin)
            setting, outer = chosen.setting, study.outer
            source = {"name": chosen.study, "trial": chosen.trial, "score": chosen.score}
            say(f"Training trial {chosen.trial} of study {chosen.study} ({chosen.score:.4f}).")
    return replace(setting, **parse(assignments)), outer, source


def _fixed_study(name: str) -> Any:
    """A study without a space, or None."""
    from fuse.space import find_study, read_study

    study = read_study(find_study(name))
    return None if study.space else study


def summary(
    settings: Settings, study_name: str | None, assignments: list[str]
) -> list[dict[str, Any]]:
    """The parts of a setting's model: shapes and parameters."""
    from fuse.summary import summarise

    from fuse.trainer import input_dims, make_model

    _, bank, origin = labelled(settings)
    setting, _, _ = choose_setting(study_name, assignments, origin)
    model = make_model(setting, input_dims(bank, setting), len(origin["classes"]))
    return [asdict(row) for row in summarise(model)]


def train(
    settings: Settings,
    study_name: str | None,
    name: str | None,
    folds: int,
    *,
    seeds: int = 1,
    averaged: bool = True,
    outer: str | None = None,
    assignments: list[str] | None = None,
) -> dict[str, Any]:
    """Trains a group of members of one setting and writes a run directory.

    Args:
        settings: The command's settings.
        study_name: See `choose_setting`.
        name: Name of the run.
        folds: Folds of the development rows; a member each.
        seeds: Members a fold.
        averaged: The model is the average of the members.
        outer: Kind of outer split; default: the study's.
        assignments: See `choose_setting`.

    Returns:
        The run's name, directory, notes and figures.
    """
    from safetensors.torch import save_file

    from fuse import ensemble
    from fuse.checkpoints import FolderCheckpoint
    from fuse.report import Post, render
    from fuse.trainer import input_dims

    samples, bank, origin = labelled(settings)
    setting, own_outer, source = choose_setting(study_name, assignments or [], origin)
    outer = outer or own_outer
    classes = origin["classes"]
    groups = duplicate_groups(samples)
    identity = {
        "setting": asdict(setting),
        "outer": outer,
        "folds": folds,
        "seeds": seeds,
        "averaged": averaged,
        "seed": settings.seed,
        "origin": origin,
    }
    with new_run(name, identity) as (name, folder):
        kept = folder / "checkpoint"
        if kept.is_dir():
            say("Going on from what an interrupted run of the same left.")
        parts = len(
            ensemble.plan(
                bank.labels.cpu().numpy(),
                groups,
                outer=outer,
                folds=folds,
                seeds=seeds,
                seed=settings.seed,
            )
        )
        members = parts * folds * seeds
        with progress(f"run {name}", members * setting.epochs, "epochs") as advance:
            final = ensemble.train(
                setting,
                bank,
                groups,
                outer=outer,
                names=classes,
                seed=settings.seed,
                folds=folds,
                seeds=seeds,
                averaged=averaged,
                on_epoch=lambda record: advance(
                    1, f"member {record['member']} of {members}, macro-F1 {record['macro_f1']:.4f}"
                ),
                checkpoint=FolderCheckpoint(kept),
            )
        with (folder / "metrics.jsonl").open("w", encoding="utf-8") as log:
            for member, fit in enumerate(final.fits, start=1):
                for record in fit.history:
                    log.write(json.dumps({"member": member, **record}) + "\n")
        write_json(
            folder / "config.json",
            {
                **identity,
                "settings": _absolute(settings, classes),
                "features": {modality: origin[modality] for modality in MODALITIES},
                "dims": asdict(input_dims(bank, setting)),
                "classes": classes,
                "encoders": {m: resolve_encoder(settings, m).label for m in MODALITIES},
                "notes": notes_of(settings),
                "calibration": final.figures["calibration"],
                "study": source,
            },
        )
        write_json(folder / "metrics.json", final.figures)
        write_json(folder / "env.json", environment(str(bank.labels.device)))
        write_command(folder / "command.txt")
        _write_predictions(folder / "predictions.csv", final, samples, classes)
        save_file(final.ensemble.tensors(), folder / "model.safetensors")
        posts = {sample.guid: Post(sample.text, sample.image_path) for sample in samples}
        (folder / "report.html").write_text(render(folder, posts, name), encoding="utf-8")
        for path in sorted(kept.glob("*")):
            path.unlink()
        if kept.is_dir():
            kept.rmdir()
    path = find_run(name)
    return {"run": name, "directory": str(path), "notes": notes_of(settings), **final.figures}


def _write_predictions(path: Path, final: Any, samples: list[Sample], classes: list[str]) -> None:
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
