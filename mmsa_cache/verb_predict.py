"""``mmsa predict`` and ``evaluate``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import aside
from .bank import Dims, FeatureBank
from .config import Settings
from .console import say
from .dataset import SPLITS, read_labels, single_sample
from .errors import CacheNotFoundError, DataError, ModelError, SettingsError, StaleCacheError
from .features import load_samples, take_in
from .pipeline import live_bank, live_pair, notes_of, open_bank, pick_device
from .runs import find_run, read_config
from .splits import is_cross_validation


def _load(run: str, device: str | None, data: Path | None) -> tuple[Any, Settings]:
    """The trained ensemble, and the settings it was made under."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from fuse.calibration import Calibration
    from fuse.ensemble import Ensemble
    from fuse.setting import restore

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
            [restore(model["setting"]) for model in config["models"]],
            load_file(folder / "model.safetensors"),
            Calibration(**config["calibration"]),
            [Dims(**model["dims"]) for model in config["models"]],
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


def predict_pair(run: str, text: str | None, image: Path | None, device: str | None) -> list[float]:
    """Class probabilities of one pair, encoded now; one of the two may be missing."""
    ensemble, settings = _load(run, device, None)
    if text is not None and image is not None:
        bank = live_bank(settings, [single_sample(text, image)])
    else:
        models = [blend.setting for blend in ensemble.blends]
        if any(m.modality == "both" and not m.modality_dropout for m in models):
            say("Note: this model was trained on whole pairs only (modality_dropout = 0).")
        dims = [Dims(**model["dims"]) for model in read_config(find_run(run))["models"]]
        bank = live_pair(settings, text, image, dims, max(1, *(m.grid**2 for m in models)))
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
    from fuse.predictions import read_predictions

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
            guids = {sample.guid for sample in take_in(settings, split)[0]}
        except DataError:
            continue
        if split == "train":
            training = guids
        if wanted & guids:
            found |= dict(predict_split(run, split, None, device))
    missing = sorted(wanted - found.keys() - _set_aside(settings))
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    judged = [row for row in rows if row.guid in found]
    if not judged:
        raise DataError(f"{labels}: every row was set aside when features were extracted.")
    if len(judged) < len(rows):
        say(f"Note: {len(rows) - len(judged)} rows are not scored: they were set aside.")
    rows = judged
    folder = find_run(run)
    held_out: set[str] = set()
    if not is_cross_validation(read_config(folder)["outer"]):  # whose model has learned every row
        held_out = set(read_predictions(folder / "predictions.csv", classes).guids)
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


def _set_aside(settings: Settings) -> set[str]:
    """Names of the rows that extractions set aside."""
    return {
        guid for split in SPLITS for guid, *_ in aside.read(settings.cache.dir, split).identities
    }


def check_pair(text: str | None, image: Path | None, split: str | None) -> None:
    """``predict`` takes either a split or one post, of which a part may be missing.

    Raises:
        SettingsError: Neither or both are given.
    """
    if (text is None and image is None) == (split is None):
        raise SettingsError(
            "Give either a split or one post to predict.", "--split test, or --text … --image …."
        )
