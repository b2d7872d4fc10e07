"""``mmsa predict`` and ``evaluate``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bank import Dims, FeatureBank
from .config import Settings
from .console import say
from .dataset import Sample, read_labels, single_sample
from .errors import CacheNotFoundError, DataError, ModelError, SettingsError, StaleCacheError
from .features import load_samples
from .pipeline import live_bank, live_pair, notes_of, open_bank, pick_device
from .runs import find_run, read_config
from .splits import duplicate_groups, learned_rows


def load_run(run: str, device: str | None, data: Path | None) -> tuple[Any, Settings]:
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
    ensemble, settings = load_run(run, device, data)
    samples = load_samples(settings, split)
    try:
        bank = open_bank(settings, split, samples)
    except (CacheNotFoundError, StaleCacheError) as error:
        say(f"{error.message} Encoding the {len(samples)} pairs now.")
        bank = live_bank(settings, samples)
    return _predict(ensemble, settings, bank)


def predict_pair(run: str, text: str | None, image: Path | None, device: str | None) -> list[float]:
    """Class probabilities of one pair, encoded now; one of the two may be missing."""
    ensemble, settings = load_run(run, device, None)
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

    Rows that the run has seen while training are counted, since figures from them mean little, and
    so are those that show the same post as such a row; ``without_duplicates`` is the score of the
    others, None where there are none.

    Raises:
        DataError: A row has no label, or no pair in the data.
    """
    import numpy as np

    from fuse.metrics import probability_score
    from fuse.probability_resampling import intervals

    classes = classes_of_run(run)
    rows = read_labels(labels, classes=tuple(classes))
    unlabelled = [row.guid for row in rows if row.label is None]
    if unlabelled:
        raise DataError(
            f"{labels}: {len(unlabelled)} row(s) have the label null.",
            "Give a file with labels.",
            unlabelled[:10],
        )
    _, settings = load_run(run, device, None)
    found: dict[str, list[float]] = {}
    posts: dict[str, Sample] = {}
    training: list[Sample] = []
    wanted = {row.guid for row in rows}
    for split in ("train", "test"):
        try:
            samples = load_samples(settings, split)
        except DataError:
            continue
        if split == "train":
            training = samples
        posts |= {sample.guid: sample for sample in samples}
        if wanted & {sample.guid for sample in samples}:
            found |= dict(predict_split(run, split, None, device))
    missing = sorted(wanted - found.keys())
    if missing:
        raise DataError(f"{labels}: {len(missing)} guid(s) are not in the data.", "", missing[:10])
    truth = np.array([row.label for row in rows], np.int64)
    probabilities = np.array([found[row.guid] for row in rows])
    seen, known = _relation(find_run(run), training, [posts[row.guid] for row in rows])
    twins = int((known & ~seen).sum())
    if seen.any():
        say(f"Note: {seen.sum()} of these {len(rows)} rows took part in training.")
    if twins:
        say(f"Note: {twins} of these {len(rows)} rows have a duplicate that took part in training.")
    return {
        "run": run,
        "rows_seen_in_training": int(seen.sum()),
        "rows_with_duplicate_in_training": twins,
        "notes": notes_of(settings),
        **probability_score(truth, probabilities, classes),
        "intervals": intervals(truth, probabilities, classes),
        "without_duplicates": (
            None
            if known.all()
            else probability_score(truth[~known], probabilities[~known], classes)
        ),
    }


def _relation(folder: Path, training: Sequence[Sample], rows: Sequence[Sample]) -> tuple[Any, Any]:
    """Whether a run has learned from each row, and whether it has from one that shows its post.

    Args:
        folder: The run.
        training: Samples of its training split.
        rows: The rows.

    Returns:
        Two boolean arrays, (rows,).
    """
    import numpy as np

    from fuse.predictions import read_predictions

    config = read_config(folder)
    judged = set(read_predictions(folder / "predictions.csv", config["classes"]).guids)
    inside = {sample.guid for sample in training}
    every = [*training, *(sample for sample in rows if sample.guid not in inside)]
    groups = duplicate_groups(every)
    learned = np.zeros(len(every), np.bool_)
    learned[: len(training)] = learned_rows(
        config["outer"],
        np.array([sample.guid in judged for sample in training], np.bool_),
        duplicate_groups(training),
    )
    place = {sample.guid: row for row, sample in enumerate(every)}
    of = np.array([place[sample.guid] for sample in rows], np.int64)
    return learned[of], np.isin(groups[of], groups[learned])


def check_pair(text: str | None, image: Path | None, split: str | None) -> None:
    """``predict`` takes either a split or one post, of which a part may be missing.

    Raises:
        SettingsError: Neither or both are given.
    """
    if (text is None and image is None) == (split is None):
        raise SettingsError(
            "Give either a split or one post to predict.", "--split test, or --text … --image …."
        )
