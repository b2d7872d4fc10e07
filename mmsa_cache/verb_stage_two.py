"""``mmsa train``, ``predict`` and ``evaluate``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .bank import Dims, FeatureBank
from .config import Settings
from .console import progress, say
from .dataset import Sample, read_labels, single_sample
from .errors import CacheNotFoundError, DataError, ModelError, SettingsError, StaleCacheError
from .features import MODALITIES, load_samples
from .pipeline import live_bank, notes_of, open_bank, origin_of, pick_device, resolve_encoder
from .runs import environment, find_run, new_run, read_config, write_command, write_json
from .splits import duplicate_groups


def _labelled(settings: Settings) -> tuple[list[Sample], FeatureBank, dict[str, Any]]:
    """The training split's samples and features, and what identifies those features."""
    samples = load_samples(settings, "train")
    bank = open_bank(settings, "train", samples).to(pick_device(settings.device))
    return samples, bank, origin_of(settings, bank)


def train(
    settings: Settings, study_name: str | None, name: str | None, folds: int
) -> dict[str, Any]:
    """Trains the best trial (or the default setting) and writes a run directory.

    Args:
        settings: The command's settings.
        study_name: A study, ``best`` of all, or None for the default setting.
        name: Name of the run.
        folds: Members of the ensemble.
    """
    from safetensors.torch import save_file

    from fuse import ensemble
    from fuse import search as engine
    from fuse.report import Post, render
    from fuse.trainer import Setting, input_dims

    samples, bank, origin = _labelled(settings)
    chosen = None
    setting, outer = Setting(), "report"
    if study_name is not None:
        chosen, study = engine.choose(study_name, origin)
        setting, outer = chosen.setting, study.outer
        say(f"Training trial {chosen.trial} of study {chosen.study} (score {chosen.score:.4f}).")
    classes = origin["classes"]
    with new_run(name) as (name, folder):
        groups = duplicate_groups(samples)
        with (
            (folder / "metrics.jsonl").open("w", encoding="utf-8") as log,
            progress(f"run {name}", folds * setting.epochs, "epochs") as advance,
        ):

            def on_epoch(record: dict[str, Any]) -> None:
                log.write(json.dumps(record) + "\n")
                advance(1, f"member {record['member']}, macro-F1 {record['macro_f1']:.4f}")

            final = ensemble.train(
                setting,
                bank,
                groups,
                outer=outer,
                names=classes,
                seed=settings.seed,
                folds=folds,
                on_epoch=on_epoch,
            )
        encoders = {m: resolve_encoder(settings, m).label for m in ("text", "image")}
        write_json(
            folder / "config.json",
            {
                "setting": asdict(setting),
                "settings": settings.model_dump(mode="json")
                | {
                    "data": settings.data.model_dump(mode="json")
                    | {"root": _absolute(settings), "classes": classes}
                }
                | {
                    "cache": settings.cache.model_dump(mode="json")
                    | {"dir": str(settings.cache.dir.resolve())}
                },
                "classes": classes,
                "features": {modality: origin[modality] for modality in MODALITIES},
                "dims": asdict(input_dims(bank, setting)),
                "encoders": encoders,
                "outer": outer,
                "notes": [settings.data.note] if settings.data.note else [],
                "offsets": final.figures["offsets"],
                "study": None
                if chosen is None
                else {"name": chosen.study, "trial": chosen.trial, "score": chosen.score},
            },
        )
        write_json(folder / "metrics.json", final.figures)
        write_json(folder / "env.json", environment(str(bank.labels.device)))
        write_command(folder / "command.txt")
        with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["guid", "tag", "predicted", *(f"p_{label}" for label in classes)])
            for index, row in zip(final.outer.tolist(), final.probabilities, strict=True):
                label = samples[index].label
                assert label is not None
                writer.writerow(
                    [samples[index].guid, classes[label], classes[int(row.argmax())]]
                    + [f"{p:.6f}" for p in row]
                )
        save_file(final.ensemble.tensors(), folder / "model.safetensors")
        posts = {sample.guid: Post(sample.text, sample.image_path) for sample in samples}
        (folder / "report.html").write_text(render(folder, posts, name), encoding="utf-8")
    path = find_run(name)
    return {"run": name, "directory": str(path), "notes": notes_of(settings), **final.figures}


def _absolute(settings: Settings) -> str | None:
    return None if settings.data.root is None else str(settings.data.root.resolve())


def _load(run: str, device: str | None, data: Path | None) -> tuple[Any, Settings]:
    """The trained ensemble, and the settings it was made under."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from fuse.ensemble import Ensemble
    from fuse.trainer import Setting

    folder = find_run(run)
    config = read_config(folder)
    try:
        raw = config["settings"]
        if device is not None:
            raw["device"] = device
        if data is not None:
            raw["data"]["root"] = str(data)
        settings = Settings.model_validate(raw)
        ensemble = Ensemble.restore(
            Setting(**config["setting"]),
            load_file(folder / "model.safetensors"),
            config["offsets"],
            Dims(**config["dims"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"The run in {folder} cannot be loaded: {error}") from error
    return ensemble, settings


def predict_split(
    run: str, split: str, data: Path | None, device: str | None
) -> list[tuple[str, list[float]]]:
    """(guid, class probabilities) of a split, in the order of its label file."""
    ensemble, settings = _load(run, device, data)
    samples = load_samples(settings, split)
    try:
        bank = open_bank(settings, split, samples)
    except (CacheNotFoundError, StaleCacheError) as error:
        say(f"{error.message} Encoding the {len(samples)} pairs now.")
        bank = live_bank(settings, samples)
    return _predict(ensemble, settings, bank)


def predict_pair(run: str, text: str, image: Path, device: str | None) -> list[float]:
    """Class probabilities of one pair, encoded now."""
    ensemble, settings = _load(run, device, None)
    bank = live_bank(settings, [single_sample(text, image)])
    return _predict(ensemble, settings, bank)[0][1]


def _predict(ensemble: Any, settings: Settings, bank: FeatureBank) -> list[tuple[str, list[float]]]:
    import numpy as np

    device = pick_device(settings.device)
    for member in ensemble.members:
        member.to(device)
    probabilities = ensemble.predict(bank.to(device), np.arange(len(bank)))
    return list(zip(bank.guids, probabilities.tolist(), strict=True))


def classes_of_run(run: str) -> list[str]:
    """Class names in the order of a run's probabilities."""
    names: list[str] = read_config(find_run(run))["classes"]
    return names


def format_predictions(rows: Sequence[tuple[str, list[float]]], classes: Sequence[str]) -> str:
    """``guid,tag`` lines, as the label files have them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["guid", "tag"])
    writer.writerows((guid, classes[p.index(max(p))]) for guid, p in rows)
    return text.getvalue()


def evaluate(run: str, labels: Path, device: str | None) -> dict[str, Any]:
    """Scores a run's predictions on the rows of a label file.

    Rows that the run has seen while training are counted, since figures from them mean little.

    Raises:
        DataError: A row has no label, or no pair in the data.
    """
    import numpy as np

    from fuse.metrics import score

    classes = classes_of_run(run)
    rows = read_labels(labels, classes=tuple(classes))
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    _, settings = _load(run, device, None)
    found: dict[str, list[float]] = {}
    training: set[str] = set()
    wanted = {row.guid for row in rows}
    for split in ("train", "test"):
        try:
            guids = {sample.guid for sample in load_samples(settings, split)}
        except DataError:
            continue
        if split == "train":
            training = guids
        if wanted & guids:
            found |= dict(predict_split(run, split, None, device))
    missing = sorted(wanted - found.keys())
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    held_out = {
        line.split(",")[0]
        for line in (find_run(run) / "predictions.csv").read_text("utf-8").splitlines()[1:]
    }
    truth = np.array([row.label for row in rows], np.int64)
    predicted = np.array([int(np.argmax(found[row.guid])) for row in rows], np.int64)
    seen = sum(row.guid in training and row.guid not in held_out for row in rows)
    if seen:
        say(f"Note: {seen} of these {len(rows)} rows took part in training.")
    return {
        "run": run,
        "rows_seen_in_training": seen,
        "notes": notes_of(settings),
        **score(truth, predicted, classes),
    }


def check_pair(text: str | None, image: Path | None, split: str | None) -> None:
    """``predict`` takes either a split or one pair.

    Raises:
        SettingsError: Neither or both are given.
    """
    if (text is None) != (image is None):
        raise SettingsError("One pair needs both --text and --image.")
    if (text is None) == (split is None):
        raise SettingsError("Nothing to predict.", "Give --split test, or --text … --image ….")
