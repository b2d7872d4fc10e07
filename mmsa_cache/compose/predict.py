"""``mmsa predict``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.console import say
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.runs.directory import find_run, read_config

from .predictor import Predictor, load_model


def load_run(run: str, device: str | None, data: Path | None = None) -> Predictor:
    """From here on nothing is downloaded: what a run asks for must be on this machine."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's client when it is imported, and by us
    return load_model(run, device=device, data=data)


def predict_split(
    run: str, split: str, data: Path | None, device: str | None
) -> list[tuple[str, list[float]]]:
    """(guid, class probabilities) of a split, in the order of its label file."""
    return load_run(run, device, data).predict_split(split)


def predict_pair(run: str, text: str | None, image: Path | None, device: str | None) -> list[float]:
    """Class probabilities of one pair, encoded now; one of the two may be missing."""
    model = load_run(run, device)
    if (text is None or image is None) and not model.knows_halves:
        say("Note: this model was trained on whole pairs only (modality_dropout = 0).")
    return model.predict_pair(text, image)


def classes_of_run(run: str) -> list[str]:
    """Class names in the order of a run's probabilities."""
    folder = find_run(run)
    names = read_config(folder).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{folder / 'config.json'} names no classes.")
    return names


def format_predictions(rows: Sequence[tuple[str, list[float]]], classes: Sequence[str]) -> str:
    """``guid,tag`` lines, as the label files have them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["guid", "tag"])
    writer.writerows((guid, classes[p.index(max(p))]) for guid, p in rows)
    return text.getvalue()


def check_pair(text: str | None, image: Path | None, split: str | None) -> None:
    """``predict`` takes either a split or one post, of which a part may be missing.

    Raises:
        SettingsError: Neither or both are given.
    """
    if (text is None and image is None) == (split is None):
        raise SettingsError(
            "Give either a split or one post to predict.", "--split test, or --text … --image …."
        )
