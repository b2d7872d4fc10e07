"""The report of a run: one HTML file that opens offline, without scripts or requests.

Everything that is a number is computed here; `report.html.j2` lays it out. What comes from data
(texts, guids, class names, the command) reaches the page only through jinja2's autoescape.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mmsa_cache.errors import ModelError

from .metrics import score
from .predictions import Predictions, read_predictions, reading
from .reliability import calibration
from .resampling import LEVEL, RESAMPLES, SEED, bootstrap

GALLERY = 8
"""Posts in each part of the gallery."""
THUMBNAIL = 192
"""Longest side of a picture in the gallery, in pixels."""
MAX_PIXELS = 64_000_000
"""A picture with more pixels is not decoded."""
MAX_CHARS = 600
"""Characters of a post's text that the gallery shows."""

FIGURES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
}
"""The four figures of a run, by their key in ``metrics.json``."""
CURVES = {
    "loss": "Training loss",
    "macro_f1": "Macro F1, stopping rows",
    "accuracy": "Accuracy, stopping rows",
}
"""The learning curves drawn, by their key in ``metrics.jsonl``."""
COLOURS = 8
"""Colours for classes in the template; more classes than that share them."""
_OWN_COLOUR = {"positive": 0, "neutral": 1, "negative": 2}
_PICTURES = ("JPEG", "PNG", "WEBP", "BMP")
_RANDOM = "(random weights)"
_TEMPLATE = Path(__file__).with_name("report.html.j2")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Post:
    """What the gallery shows of a post."""

    text: str
    image: Path


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of learning curves, in data units."""

    key: str
    title: str
    epochs: int
    """Right end of the epoch axis, which begins at 1."""
    epoch_ticks: list[int]
    ticks: list[float]
    """Ticks of the value axis; the first and the last are its ends."""
    lines: list[list[tuple[int, float]]]
    """(epoch, value) of every member."""
    mean: list[tuple[int, float]]
    """Mean over the members, for the epochs that every member reached."""
    marks: list[tuple[int, float]]
    """The epoch that each member kept."""


def render(folder: Path, posts: Mapping[str, Post], title: str = "") -> str:
    """Writes the report of a run as the text of one HTML file.

    Args:
        folder: A run directory with ``config.json``, ``metrics.json``, ``metrics.jsonl``,
            ``env.json``, ``command.txt`` and ``predictions.csv``.
        posts: Text and picture by guid, for the gallery; it may lack guids.
        title: Name of the run; by default the folder's.

    Returns:
        HTML, to be saved as UTF-8.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other; the
            message names it.
    """
    config = _read_config(folder / "config.json")
    classes: list[str] = config["classes"]
    metrics = _read_metrics(folder / "metrics.json", classes)
    predictions = read_predictions(folder / "predictions.csv", classes)
    _check_agreement(folder, metrics["outer"], predictions, classes)
    history = _read_history(folder / "metrics.jsonl")
    bins, error = calibration(predictions.confidence, predictions.labels == predictions.predicted)
    intervals, class_intervals = bootstrap(predictions.labels, predictions.predicted, len(classes))
    page = _template().render(
        run=title or folder.resolve().name,
        config=config,
        caveats=[*config["notes"], *_random_weights(config["encoders"])],
        colours=class_colours(classes),
        env=_read_env(folder / "env.json"),
        command=_read_text(folder / "command.txt").strip(),
        metrics=metrics,
        scores=_scores(metrics),
        figures=FIGURES,
        intervals=intervals,
        class_intervals=class_intervals,
        interval_ticks=ticks([v for i in intervals.values() for v in (i.low, i.high)]),
        charts=learning_curves(history, metrics["members"]),
        bins=bins,
        calibration_error=error,
        largest_bin=max(b.rows for b in bins),
        errors=_cards(confident_errors(predictions), predictions, posts),
        uncertain=_cards(least_certain(predictions), predictions, posts),
        wrong=int((predictions.labels != predictions.predicted).sum()),
        resamples=RESAMPLES,
        seed=SEED,
        level=f"{LEVEL:.0%}",
        gallery=GALLERY,
    )
    return _printable(page)


# --- figures ------------------------------------------------------------------------------------


def learning_curves(
    history: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]] = ()
) -> list[Chart]:
    """One chart for each of `CURVES`; none without history.

    Args:
        history: Records with ``member``, ``epoch`` and the keys of `CURVES`.
        members: Records with ``member`` and ``best_epoch``, for the marks.
    """
    if not history:
        return []
    epochs = max(record["epoch"] for record in history)
    kept = {(member["member"], member["best_epoch"]) for member in members}
    charts = []
    for key, title in CURVES.items():
        lines: dict[int, dict[int, float]] = {}
        for record in history:
            lines.setdefault(record["member"], {})[record["epoch"]] = record[key]
        shared = sorted(set.intersection(*(set(line) for line in lines.values())))
        mean = [(e, sum(line[e] for line in lines.values()) / len(lines)) for e in shared]
        charts.append(
            Chart(
                key=key,
                title=title,
                epochs=max(epochs, 2),
                epoch_ticks=_epoch_ticks(epochs),
                ticks=ticks([record[key] for record in history]),
                lines=[sorted(line.items()) for line in lines.values()],
                mean=mean,
                marks=[(r["epoch"], r[key]) for r in history if (r["member"], r["epoch"]) in kept],
            )
        )
    return charts


def ticks(values: Iterable[float], most: int = 5) -> list[float]:
    """Round axis ticks around values, a step of 1, 2 or 5 times a power of ten apart.

    Args:
        values: What the axis has to hold.
        most: At most this many steps.

    Returns:
        Two or more ticks; the first is not above the lowest value, the last not below the highest.
    """
    found = list(values)
    low, high = min(found), max(found)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def _tick_labels(places: Sequence[float]) -> list[str]:
    """Ticks as text, all with the decimals that the step needs."""
    decimals = max(0, -math.floor(math.log10(places[1] - places[0]) + 1e-9))
    return [f"{place:.{decimals}f}".replace("-", "−") for place in places]


def _epoch_ticks(epochs: int) -> list[int]:
    """The first epoch and round ones after it."""
    if epochs <= 5:
        return list(range(1, max(epochs, 2) + 1))
    return [1, *(int(t) for t in ticks([0, epochs]) if 1 < t <= epochs and t == int(t))]


def confident_errors(predictions: Predictions, most: int = GALLERY) -> NDArray[np.int64]:
    """Places of the wrong predictions, the highest probability of the predicted class first."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]


def least_certain(predictions: Predictions, most: int = GALLERY) -> NDArray[np.int64]:
    """Places of the rows whose two highest probabilities lie closest, the closest first."""
    ordered = np.sort(predictions.probabilities, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)
    return np.argsort(lead, kind="stable")[:most]


# --- the page -----------------------------------------------------------------------------------


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["labels"] = _tick_labels
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "−")
    return environment.get_template(_TEMPLATE.name)


def _plain(value: object) -> str:
    """A setting's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(page: str) -> str:
    """The page without what HTML or UTF-8 cannot hold (control characters, lone surrogates)."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", page)


def _random_weights(encoders: Mapping[str, str]) -> list[str]:
    """The sentence that names encoders without trained weights, if there are any."""
    names = [f"{m} encoder" for m, label in encoders.items() if label.strip().endswith(_RANDOM)]
    return [f"Random weights: {' and '.join(names)} not pretrained."] if names else []


def class_colours(classes: Sequence[str]) -> dict[str, int]:
    """A colour number of the template for every class; the three sentiments keep their own."""
    own = {name: _OWN_COLOUR[name] for name in classes if name in _OWN_COLOUR}
    free = [n for n in range(COLOURS) if n not in own.values()]
    others = [name for name in classes if name not in own]
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def _scores(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table with and without calibration; empty without anything to compare."""
    rows = [
        {"rows_of": rows_of, "calibration": calibration, "score": metrics[key]}
        for key, rows_of, calibration in (
            ("outer", "outer", "with"),
            ("outer_uncalibrated", "outer", "without"),
            ("inner", "inner", "with"),
            ("inner_uncalibrated", "inner", "without"),
        )
        if metrics[key] is not None
    ]
    return rows if len(rows) > 1 else []


def _cards(
    places: NDArray[np.int64], predictions: Predictions, posts: Mapping[str, Post]
) -> list[dict[str, Any]]:
    """What the gallery shows of each row."""
    cards = []
    for place in places.tolist():
        post = posts.get(predictions.guids[place])
        picture, note = (None, "") if post is None else _picture(post.image)
        cards.append(
            {
                "guid": predictions.guids[place],
                "text": None if post is None else post.text[:MAX_CHARS],
                "cut": post is not None and len(post.text) > MAX_CHARS,
                "picture": picture,
                "note": note,
                "label": int(predictions.labels[place]),
                "predicted": int(predictions.predicted[place]),
                "probabilities": predictions.probabilities[place].tolist(),
            }
        )
    return cards


def _picture(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A thumbnail as data URI with its size in pixels, or None and the reason why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _thumbnail(path), ""
    except FileNotFoundError:
        return None, "The picture is missing."
    except Exception:  # a damaged picture may raise nearly anything inside Pillow
        return None, "The picture cannot be opened."


def _thumbnail(path: Path) -> dict[str, Any]:
    # Only the formats of the data: Pillow also knows some that start other programs.
    with Image.open(path, formats=_PICTURES) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"more than {MAX_PIXELS} pixels")
        opened.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=82, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return {"uri": uri, "width": picture.width, "height": picture.height}


# --- the files of a run -------------------------------------------------------------------------


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
        return {
            "classes": classes,
            "encoders": {m: _get(encoders, m, str) for m in ("text", "image")},
            "setting": _get(config, "setting", dict),
            "outer": _get(config, "outer", str),
            "study": None if study is None else _study(study),
            "root": _get(_get(config, "settings", dict), "data", dict).get("root"),
            "notes": _list_of(config, "notes", str) if "notes" in config else [],
        }


def _study(study: Any) -> dict[str, Any]:
    found = {"name": _get(study, "name", str), "trial": _get(study, "trial", int)}
    return found | {"score": None if study.get("score") is None else _get(study, "score", float)}


def _read_metrics(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """``metrics.json`` with None (no members: an empty list) for what it leaves out."""
    with reading(path):
        raw = json.loads(path.read_bytes())
        found: dict[str, Any] = {"outer": _score(_get(raw, "outer", dict), classes)}
        for key in ("outer_uncalibrated", "inner", "inner_uncalibrated"):
            part = raw.get(key)
            found[key] = None if part is None else _score(part, classes)
        rows = raw.get("training_rows")
        found["offsets"] = found["temperature"] = None
        if raw.get("calibration") is not None:
            fitted = _get(raw, "calibration", dict)
            found["offsets"] = _list_of(fitted, "offsets", float, len(classes))
            found["temperature"] = _get(fitted, "temperature", float)
        found["training_rows"] = None if rows is None else _as(rows, int, "'training_rows'")
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
            }
            for name in classes
        },
        **{key: _get(raw, key, float) for key in FIGURES},
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
    """What the run was made with: ``machine`` and ``packages``."""
    with reading(path):
        env = _as(json.loads(path.read_bytes()), dict, "it")
        machine = {k: v for k, v in env.items() if k != "packages"}
        return {"machine": machine, "packages": _get(env, "packages", dict)}


def _check_agreement(
    folder: Path, outer: Mapping[str, Any], predictions: Predictions, classes: Sequence[str]
) -> None:
    """The intervals belong to the figures only if both come from the same predictions."""
    counted = score(predictions.labels, predictions.predicted, classes)["confusion"]
    if counted != outer["confusion"]:
        raise ModelError(
            f"{folder / 'predictions.csv'} does not give the confusion matrix of "
            f"{folder / 'metrics.json'}: expected {outer['confusion']}, received {counted}.",
            "Train the run again.",
        )
