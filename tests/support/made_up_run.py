"""A run directory with invented figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from fuse.evidence.compare import RunPredictions, compare_rows, pair_rows
from fuse.figures.metrics import probability_score, score
from fuse.figures.predictions import Predictions
from mmsa_cache.compose.report.attention import AttentionMaps, PostAttention
from mmsa_cache.compose.report.sections import LossSection

CLASSES = ["positive", "neutral", "negative"]
HOSTILE = "<script>alert(1)</script>\"'&"
SECTIONS = ["run", "results", "confusion", "curves", "loss", "reliability", "search", "gallery"]
ROWS = 90


def outcome(classes: list[str] = CLASSES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and probabilities of invented rows."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, len(classes), ROWS)
    logits = rng.normal(size=(ROWS, len(classes))) + 1.2 * np.eye(len(classes))[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities.round(6)


def outer_of(skipped: int = 0) -> dict[str, Any]:
    """The score of the invented rows without the first ones."""
    labels, _, probabilities = outcome()
    return probability_score(labels[skipped:], shares(probabilities[skipped:]), CLASSES).as_json()


def shares(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def config_of(classes: list[str] = CLASSES, **changes: Any) -> dict[str, Any]:
    """``config.json`` of a run."""
    config = {
        "models": [model_of()],
        "outer": "report",
        "folds": 5,
        "seeds": 1,
        "averaged": True,
        "refit": False,
        "seed": 47,
        "settings": {},
        "classes": classes,
        "encoder_fields": encoder_fields(),
        "calibration": {"temperature": 1.0, "offsets": [0.0] * len(classes)},
    }
    return config | changes


def model_of(**setting: Any) -> dict[str, Any]:
    return {"setting": setting, "dims": {"text": 4, "image": 4, "vectors": {}}}


def encoder_fields(text: str = "tiny-text", image: str = "tiny-image") -> dict[str, Any]:
    """Trained encoders of a run."""
    return {
        modality: {"modality": modality, "encoder": name, "weights": "abc", "layer": "last"}
        for modality, name in (("text", text), ("image", image))
    }


def write_run(folder: Path, classes: list[str] = CLASSES, guids: list[str] | None = None) -> Path:
    """A whole run directory of invented figures."""
    labels, predicted, probabilities = outcome(classes)
    folder.mkdir(exist_ok=True)
    outer = probability_score(labels, shares(probabilities), classes).as_json()
    inner = score(labels[:40], predicted[:40], classes).as_json()
    member = {"best_epoch": 2, "training_rows": 300, "stopping_rows": 40}
    files: dict[str, Any] = {
        "config.json": config_of(
            classes,
            models=[model_of(fusion="concat", dropout=0.25, norm="standardise")],
            studies=[{"name": "quick", "trial": 7, "score": 0.5}],
            settings={"data": {"root": "/invented/data"}},
        ),
        "metrics.json": {
            "outer": outer,
            "outer_uncalibrated": outer,
            "inner": inner,
            "inner_uncalibrated": inner,
            "calibration": {"temperature": 1.25, "offsets": [0.1, -0.2, 0.3][: len(classes)]},
            "members": [
                member | {"member": m, "macro_f1": 0.4 + m / 10, "accuracy": 0.6} for m in (1, 2)
            ],
            "training_rows": 340,
        },
        "env.json": {"python": "3.11", "cpus": 2, "device": "cpu", "packages": {"torch": "2.13.0"}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "studies.json").write_text(json.dumps([invented_study()]), encoding="utf-8")
    (folder / "command.txt").write_text("mmsa train --study quick\n", encoding="utf-8")
    history = [
        {"member": m, "epoch": e, "loss": 1 / e, "learning_rate": 1e-4}
        | {"accuracy": 0.5 + e / 50, "macro_f1": 0.4 + m / 10 + e / 50}
        for m, epochs in ((1, 3), (2, 5))
        for e in range(1, epochs + 1)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in history)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["guid", "tag", "predicted", *(f"p_{name}" for name in classes)])
        for row in range(ROWS):
            guid = str(row) if guids is None else guids[row]
            names = [classes[labels[row]], classes[predicted[row]]]
            writer.writerow([guid, *names, *probabilities[row]])
    return folder


def write_other_run(folder: Path, classes: list[str] = CLASSES, rows: int = ROWS) -> Path:
    """A second run of rows of the first one: guids and classes in another order, and every third
    row another class than the first run's."""
    labels, _, probabilities = outcome()
    probabilities[::3] = np.roll(probabilities[::3], 1, axis=1)
    write_run(folder, classes)
    outer = probability_score(labels[:rows], shares(probabilities[:rows]), CLASSES).as_json()
    change(folder / "config.json", models=[model_of(fusion="gated", dropout=0.25)], seed=48)
    turned = classes[::-1]
    outer["per_class"] = {name: outer["per_class"][name] for name in turned}
    outer["confusion"] = np.array(outer["confusion"])[::-1, ::-1].tolist()
    change(folder / "config.json", classes=turned)
    calibration = {"temperature": 1.0, "offsets": [0.0] * len(classes)}
    inner = dict.fromkeys(["inner", "inner_uncalibrated", "outer_uncalibrated"], ...)
    change(folder / "metrics.json", outer=outer, calibration=calibration, **inner)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["guid", "tag", "predicted", *(f"p_{name}" for name in turned)])
        for row in reversed(range(rows)):
            of = probabilities[row]
            names = [classes[labels[row]], classes[int(of.argmax())]]
            writer.writerow([row, *names, *of[::-1]])
    return folder


def invented_study(name: str = "quick") -> dict[str, Any]:
    """What a run keeps of its study."""
    scores = [0.5, 0.4, 0.55, None, 0.52, 0.6, 0.58]
    states = ["complete", "pruned", "complete", "fail", "complete", "complete", "complete"]
    return {
        "name": name,
        "metric": "macro_f1",
        "trial": 5,
        "trials": [
            {"number": n, "state": state, "score": score}
            for n, (state, score) in enumerate(zip(states, scores, strict=True))
        ],
        "importance": [
            {"parameter": "fusion", "median": 0.7, "low": 0.4, "high": 0.9, "trials": 5},
            {"parameter": name, "median": 0.3, "low": 0.0, "high": 0.6, "trials": 3},
        ],
        "by_fusion": [
            {"value": "encoder", "trials": 3, "complete": 3, "trial": 5, "score": 0.6},
            {"value": "concat", "trials": 3, "complete": 2, "trial": 2, "score": 0.55},
        ],
        "alpha_beta": [
            {"alpha": 0.25, "beta": 0.75, "trials": 2, "mean": 0.52, "best": 0.55},
            {"alpha": 0.5, "beta": 0.5, "trials": 1, "mean": 0.6, "best": 0.6},
        ],
        "judged": {
            "trial": 5,
            "inner_score": 0.6,
            "outer_score": 0.57,
            "outer_score_together": 0.58,
            "optimism_gap": 0.03,
            "optimism_interval": [-0.01, 0.07],
        },
    }


def against(classes: list[str] = CLASSES, guids: list[str] | None = None) -> LossSection:
    """A second run that guesses half of the rows."""
    labels, predicted, probabilities = outcome(classes)
    names = guids or [str(row) for row in range(ROWS)]
    other = np.where(np.arange(ROWS) % 2, predicted, (labels + 1) % len(classes))
    runs = [
        RunPredictions(name, classes, Predictions(names, labels, found, probabilities))
        for name, found in (("other (ce)", other), ("made-up (acb)", predicted))
    ]
    return LossSection("Against the run other.", comparison=compare_rows(pair_rows(runs)))


def explained(guids: list[str], words: tuple[str, ...] = ("good", "day")) -> AttentionMaps:
    """Attention of invented words: the k-th looks at cell k of 4 × 4, and a little elsewhere."""
    weights = np.full((len(words), 4, 4), 0.5 / 16)
    for k in range(len(words)):
        weights[k].flat[k % 16] += 0.5
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    return AttentionMaps(
        "Mean over heads.", {g: PostAttention(picture, list(words), weights) for g in guids}
    )


def change(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file; ``...`` removes one."""
    content = json.loads(path.read_text("utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")
