"""The files of a run, read and checked for its report.

Nothing is taken on trust: a key that is missing or of another kind is named with its file.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fuse.figures.metrics import probability_score, score
from fuse.figures.predictions import Predictions
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.predictions import read_predictions, reading

from .run import CURVES, FIGURES, RunFiles

_ALWAYS = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
"""Those that a run of any version has."""
_FURTHER = ("outer_uncalibrated", "inner", "inner_uncalibrated", "outer_without_duplicates")
"""Scores beside that of the outer rows, by their key in ``metrics.json``."""
_GROUP = ("folds", "seeds", "averaged", "refit", "seed")
"""How the members of a run came about, by their key in ``config.json``."""
STUDIES = "studies.json"
"""What a run keeps of the studies that it came from."""
T = TypeVar("T")


def read_run(folder: Path) -> RunFiles:
    """Reads a run directory.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other; the
            message names it.
    """
    config = _read_config(folder / "config.json")
    classes: list[str] = config["classes"]
    metrics = _read_metrics(folder / "metrics.json", classes)
    predictions = read_predictions(folder / "predictions.csv", classes)
    _check_agreement(folder, metrics["outer"], predictions, classes)
    # A run of an earlier version has fewer figures; what predictions.csv says of them is rounded.
    total = predictions.probabilities.sum(axis=1, keepdims=True)
    shares = predictions.probabilities / np.where(total > 0, total, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of zeros do not sum to one
        whole = probability_score(predictions.labels, shares, classes).as_json()
    metrics["outer"] = _filled(metrics["outer"], whole)
    return RunFiles(
        config,
        metrics,
        predictions,
        _read_history(folder / "metrics.jsonl"),
        _read_env(folder / "env.json"),
        _read_text(folder / "command.txt").strip(),
        _read_studies(folder / STUDIES),
    )


def _filled(found: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A score with the figures that it lacks from another one of the same rows."""
    per_class = {name: whole["per_class"][name] | of for name, of in found["per_class"].items()}
    return {**whole, **found, "per_class": per_class}


def _as(value: Any, kind: type[T], name: str) -> T:
    """`value` if it is of the kind (an int serves as float, a bool never as int).

    Raises:
        ValueError: It is not, or it is not finite.
    """
    if kind is float and type(value) is int:
        value = float(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not finite:
        received = repr(value)[:60]
        raise ValueError(f"expected {name} to be {kind.__name__}, received {received}")
    return value


def _get(source: Any, key: str, kind: type[T]) -> T:
    """A key of a JSON object.

    Raises:
        ValueError: No object, no such key, or a value of another kind.
    """
    if key not in _as(source, dict, f"what holds {key!r}"):
        raise ValueError(f"it has no {key!r}")
    return _as(source[key], kind, repr(key))


def _list_of(source: Any, key: str, kind: type[T], length: int | None = None) -> list[T]:
    """A list in a JSON object, every entry of one kind."""
    values = [_as(v, kind, f"each of {key!r}") for v in _get(source, key, list)]
    if length is not None and len(values) != length:
        raise ValueError(f"expected {length} entries in {key!r}, received {len(values)}")
    return values


def _read_text(path: Path) -> str:
    with reading(path):
        return path.read_text("utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    with reading(path):
        config = json.loads(path.read_bytes())
        classes = _list_of(config, "classes", str)
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f"expected 'classes' to be different names, received {classes}")
        encoders = _get(config, "encoders", dict)
        study = config.get("study")
        data = _get(_get(config, "settings", dict), "data", dict)
        return {
            "classes": classes,
            "encoders": {m: _get(encoders, m, str) for m in ("text", "image")},
            "settings": _settings(config),
            "outer": _get(config, "outer", str),
            "group": {key: config.get(key) for key in _GROUP},
            "study": None if study is None else _study(study),
            "data": {key: data.get(key) for key in ("root", "encoding", "max_chars")},
            "notes": _list_of(config, "notes", str) if "notes" in config else [],
        }


def _settings(config: Any) -> list[dict[str, Any]]:
    """What was trained; a run of a version before there were several has one."""
    if "models" not in config:
        return [_get(config, "setting", dict)]
    return [_get(model, "setting", dict) for model in _list_of(config, "models", dict)]


def _study(study: Any) -> dict[str, Any]:
    found = {"name": _get(study, "name", str), "trial": _get(study, "trial", int)}
    return found | {"score": None if study.get("score") is None else _get(study, "score", float)}


def _read_metrics(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    with reading(path):
        raw = json.loads(path.read_bytes())
        found: dict[str, Any] = {"outer": _score(_get(raw, "outer", dict), classes)}
        for key in _FURTHER:
            part = raw.get(key)
            found[key] = None if part is None else _score(part, classes)
        rows = raw.get("training_rows")
        found["offsets"] = found["temperature"] = None
        if raw.get("calibration") is not None:
            fitted = _get(raw, "calibration", dict)
            found["offsets"] = _list_of(fitted, "offsets", float, len(classes))
            found["temperature"] = _get(fitted, "temperature", float)
        found["training_rows"] = None if rows is None else _as(rows, int, "'training_rows'")
        found["duplicates"] = None
        if raw.get("duplicates") is not None:
            found["duplicates"] = _list_of(raw["duplicates"], "guids", str)
        found["members"] = [_member(m) for m in _as(raw.get("members") or [], list, "'members'")]
        return found


def _score(raw: Any, classes: Sequence[str]) -> dict[str, Any]:
    """A part of ``metrics.json`` as `metrics.score` made it, checked."""
    per_class = _get(raw, "per_class", dict)
    confusion = [
        [_as(cell, int, "each cell of 'confusion'") for cell in row]
        for row in _list_of(raw, "confusion", list, len(classes))
    ]
    if any(len(row) != len(classes) for row in confusion):
        raise ValueError(f"expected {len(classes)} cells in each row of 'confusion'")
    return {
        "rows": _get(raw, "rows", int),
        "confusion": confusion,
        "per_class": {
            name: {
                "support": _get(_get(per_class, name, dict), "support", int),
                **{k: _get(per_class[name], k, float) for k in ("precision", "recall", "f1")},
                **_optional(per_class[name], ["average_precision"]),
            }
            for name in classes
        },
        **{key: _get(raw, key, float) for key in _ALWAYS},
        **_optional(raw, [key for key in FIGURES if key not in _ALWAYS]),
    }


def _optional(raw: Mapping[str, Any], keys: Sequence[str]) -> dict[str, float | None]:
    """Figures that an earlier version may lack, and that are null where rows cannot say them."""
    return {
        key: None if raw[key] is None else _as(raw[key], float, repr(key))
        for key in keys
        if key in raw
    }


def _member(raw: Any) -> dict[str, Any]:
    whole = ("member", "best_epoch", "training_rows", "stopping_rows")
    return {key: _get(raw, key, int) for key in whole} | {
        key: _get(raw, key, float) for key in ("macro_f1", "accuracy")
    }


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Every epoch of every member of the folds; older files hold neither events nor members."""
    with reading(path):
        records = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                raw = {"event": "epoch", "member": 1} | _as(json.loads(line), dict, "the line")
                if raw["event"] != "epoch":
                    continue
                records.append(
                    {key: _get(raw, key, int) for key in ("member", "epoch")}
                    | {key: _get(raw, key, float) for key in CURVES}
                )
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
        return records


def _read_env(path: Path) -> dict[str, dict[str, Any]]:
    with reading(path):
        env = _as(json.loads(path.read_bytes()), dict, "it")
        machine = {k: v for k, v in env.items() if k != "packages"}
        return {"machine": machine, "packages": _get(env, "packages", dict)}


def _read_studies(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with reading(path):
        return [_snapshot(raw) for raw in _as(json.loads(path.read_bytes()), list, "it")]


def _snapshot(raw: Any) -> dict[str, Any]:
    def rows(key: str, whole: Sequence[str], real: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {k: _get(row, k, int) for k in whole} | {k: _get(row, k, float) for k in real}
            for row in _list_of(raw, key, dict)
        ]

    fusions = rows("by_fusion", ("trials", "complete", "trial"), ("score",))
    parameters = rows("importance", ("trials",), ("median", "low", "high"))
    for found, key, name in (
        (fusions, "by_fusion", "value"),
        (parameters, "importance", "parameter"),
    ):
        for row, named in zip(found, raw[key], strict=True):
            row[name] = _get(named, name, str)
    judged = raw.get("judged")
    figures = ("inner_score", "outer_score", "outer_score_together", "optimism_gap")
    return {
        "name": _get(raw, "name", str),
        "metric": _get(raw, "metric", str),
        "trial": _get(raw, "trial", int),
        "trials": [
            {
                "number": _get(trial, "number", int),
                "state": _get(trial, "state", str),
                "score": None if trial.get("score") is None else _get(trial, "score", float),
            }
            for trial in _list_of(raw, "trials", dict)
        ],
        "importance": parameters,
        "by_fusion": fusions,
        "alpha_beta": rows("alpha_beta", ("trials",), ("alpha", "beta", "mean", "best")),
        "judged": None
        if judged is None
        else {key: _get(judged, key, float) for key in figures}
        | {"interval": _list_of(judged, "optimism_interval", float, 2)},
    }


def _check_agreement(
    folder: Path, outer: Mapping[str, Any], predictions: Predictions, classes: Sequence[str]
) -> None:
    """The intervals belong to the figures only if both come from the same predictions."""
    counted = score(predictions.labels, predictions.predicted, classes).confusion
    if counted != outer["confusion"]:
        raise ModelError(
            f"{folder / 'predictions.csv'} does not give the confusion matrix of "
            f"{folder / 'metrics.json'}: expected {outer['confusion']}, received {counted}.",
            "Train the run again.",
        )
