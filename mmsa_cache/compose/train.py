"""``mmsa train``: a run directory of one setting."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.dataset import Sample
from mmsa_cache.data.splits import duplicate_groups
from mmsa_cache.features.bank import OWN_PAIR, EncoderPair, FeatureBank
from mmsa_cache.runs.directory import (
    CHECKPOINT,
    environment,
    find_run,
    new_run,
    write_command,
    write_json,
)
from mmsa_cache.runs.tracking import JsonLines, Place, check_trackers, log_run, scalars, tracking

from .pipeline import (
    fields_of,
    joined_labels,
    notes_of,
    open_bank,
    origin_of,
    origins_here,
    pick_device,
)
from .report import compose
from .samples import MODALITIES, load_samples

DEFAULT_OUTER = "report"


def labelled(settings: Settings) -> tuple[list[Sample], FeatureBank, dict[str, Any]]:
    """The training split's samples and features, and what identifies those features."""
    samples = load_samples(settings, "train")
    return samples, *_features(settings, samples, [OWN_PAIR])


def _features(
    settings: Settings, samples: list[Sample], pairs: Sequence[EncoderPair]
) -> tuple[FeatureBank, dict[str, Any]]:
    bank = open_bank(settings, "train", samples, pairs).to(pick_device(settings.device))
    return bank, origin_of(settings, bank, pairs)


def choose_settings(
    studies: Sequence[str], assignments: Sequence[str], origin: Callable[[], dict[str, Any]]
) -> tuple[list[Any], str, list[dict[str, Any]]]:
    """The settings to train, their outer split, and the trials that they come from.

    Args:
        studies: Each a study (``NAME`` or ``NAME:TRIAL``) or ``best`` of all; none: the defaults. A
            study file without a space is one setting and needs no search. The first one says how
            the model is judged.
        assignments: ``key=value``, over what the studies say.
        origin: Says what features there are, see `pipeline.origins_here`.
    """
    from fuse.search import search as engine
    from fuse.setting import Setting, parse

    changes = parse(list(assignments))
    if not studies:
        return [Setting(**changes)], DEFAULT_OUTER, []
    settings, outers = [], []
    sources: list[dict[str, Any]] = []
    for name in studies:
        fixed = None if name == "best" or ":" in name else _fixed_study(name)
        if fixed is not None:
            setting, outer = Setting(**{"metric": fixed.metric, **fixed.fixed}), fixed.outer
            sources.append({"name": name, "trial": None, "score": None})
        else:
            chosen, study = engine.choose(name, origin())
            setting, outer = chosen.setting, study.outer
            sources.append({"name": chosen.study, **chosen.source})
            say(f"Training trial {chosen.trial} of study {chosen.study} ({chosen.score:.4f}).")
        settings.append(replace(setting, **changes))
        outers.append(outer)
    return settings, outers[0], sources


def _fixed_study(name: str) -> Any:
    """A study without a space, or None."""
    from fuse.search.study_file import find_study, read_study

    study = read_study(find_study(name))
    return None if study.space else study


def summary(
    settings: Settings, studies: Sequence[str], assignments: Sequence[str]
) -> list[dict[str, Any]]:
    """The parts of the settings' models: shapes and parameters."""
    from fuse.models.summary import summarise
    from fuse.training.classifier import input_dims, make_model

    samples = load_samples(settings, "train")
    chosen, _, _ = choose_settings(studies, assignments, lambda: origins_here(settings, samples))
    bank, origin = _features(settings, samples, [setting.encoders for setting in chosen])
    return [
        asdict(row)
        for setting in chosen
        for row in summarise(make_model(setting, input_dims(bank, setting), len(origin["classes"])))
    ]


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
        track: Where it is recorded besides JSON lines, see `tracking.TRACKERS`.

    Returns:
        The run's name, directory, notes and figures.
    """
    from safetensors.torch import save_file

    from fuse.report.run_files import STUDIES
    from fuse.search.study_record import snapshot
    from fuse.training import final as finals
    from fuse.training.checkpoints import FolderCheckpoint
    from fuse.training.classifier import input_dims

    check_trackers(track)
    started = time.monotonic()
    samples = load_samples(settings, "train")
    chosen, own_outer, sources = choose_settings(
        studies, assignments, lambda: origins_here(settings, samples)
    )
    pairs = list(dict.fromkeys(setting.encoders for setting in chosen))
    bank, origin = _features(settings, samples, pairs)
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
        parts = len(
            finals.plan(
                bank.labels.cpu().numpy(),
                groups,
                outer=outer,
                folds=folds,
                seeds=seeds,
                seed=settings.seed,
            )
        )
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

            def record_epoch(record: dict[str, Any]) -> None:
                _append_epoch(lines, record)
                tracked.log(
                    f"member-{record['member']}",
                    record["epoch"],
                    {k: v for k, v in record.items() if k not in ("member", "epoch")},
                )

            if (folder / CHECKPOINT).is_dir():
                say("Going on from what an interrupted run of the same left.")
                for at, history in kept.histories():
                    for record in history:
                        record_epoch({"member": at + 1, **record})

            def on_epoch(record: dict[str, Any]) -> None:
                record_epoch(record)
                advance(1, _progress_note(record, members))

            final = finals.train(
                chosen,
                bank,
                groups,
                outer=outer,
                names=classes,
                seed=settings.seed,
                folds=folds,
                seeds=seeds,
                averaged=averaged,
                refit=refit,
                on_epoch=on_epoch,
                checkpoint=kept,
            )
            tracked.final = scalars(final.figures)
        # Written anew in the order of members, which a stack or a resumed run did not keep.
        lines = JsonLines(folder / "metrics.jsonl", fresh=True)
        for member, fit in enumerate(final.fits, start=1):
            for record in fit.history:
                _append_epoch(lines, {"member": member, **record})
        lines.append("final", figures=scalars(final.figures))
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
                "calibration": final.figures["calibration"],
                "setting": asdict(chosen[0]),
                "study": next((s for s in sources if s["trial"] is not None), None),
                "studies": sources,
            },
        )
        write_json(folder / "metrics.json", final.figures)
        write_json(folder / "env.json", environment(str(bank.labels.device)))
        write_command(folder / "command.txt")
        _write_predictions(folder / "predictions.csv", final, samples, classes)
        save_file(final.ensemble.tensors(), folder / "model.safetensors")
        searched = [s for s in sources if s["trial"] is not None]
        if searched:
            write_json(folder / STUDIES, [snapshot(s["name"], s["trial"]) for s in searched])
        page = compose(folder, name, samples, final.ensemble, bank, settings)
        (folder / "report.html").write_text(page, encoding="utf-8")
    path = find_run(name)
    log_run("train", name, round(time.monotonic() - started, 1), scalars(final.figures))
    notes = notes_of(settings, pairs)
    return {"run": name, "directory": str(path), "notes": notes, **final.figures}


def _append_epoch(lines: JsonLines, record: dict[str, Any]) -> None:
    """A member of the folds is scored after each epoch; one of all rows has no rows for it."""
    lines.append("epoch" if "macro_f1" in record else "refit", **record)


def _parameters(
    identity: dict[str, Any], chosen: Sequence[Any], encoders: dict[str, str]
) -> dict[str, Any]:
    """What trackers show of a run: plain values, those of a second setting as ``2.KEY``."""
    names = ("outer", "folds", "seeds", "averaged", "refit", "seed")
    found = {name: identity[name] for name in names}
    found |= {f"{modality}_encoder": label for modality, label in encoders.items()}
    for number, setting in enumerate(chosen, start=1):
        start = f"{number}." if number > 1 else ""
        found |= {f"{start}{key}": value for key, value in asdict(setting).items()}
    return found


def _progress_note(record: dict[str, Any], members: int) -> str:
    score = f", macro-F1 {record['macro_f1']:.4f}" if "macro_f1" in record else ""
    return f"member {record['member']} of {members}{score}"


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


FIGURES = ["rows of", "rows", "accuracy", "macro-F1", "log-loss"]


def figure_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What `train` returned, a line a set of rows, with the columns `FIGURES`."""
    rows = [
        {
            "rows of": title,
            "rows": str(record[key]["rows"]),
            "accuracy": f"{record[key]['accuracy']:.4f}",
            "macro-F1": f"{record[key]['macro_f1']:.4f}",
            "log-loss": f"{-record[key]['neg_log_loss']:.4f}",
        }
        for key, title in (
            ("outer", "outer"),
            ("outer_uncalibrated", "outer, uncalibrated"),
            ("inner", "inner"),
            ("inner_uncalibrated", "inner, uncalibrated"),
        )
    ]
    for key, title, count in (
        ("spread", "single members on outer", len(record["members"])),
        ("spread_parts", "outer parts", len(record["parts"])),
    ):
        if count > 1:
            of = record[key]
            rows.append(
                {
                    "rows of": f"{count} {title}",
                    "rows": "",
                    **{
                        name: f"{sign * of[m]['mean']:.4f} ± {of[m]['deviation']:.4f}"
                        for name, m, sign in (
                            ("accuracy", "accuracy", 1),
                            ("macro-F1", "macro_f1", 1),
                            ("log-loss", "neg_log_loss", -1),
                        )
                    },
                }
            )
    return rows
