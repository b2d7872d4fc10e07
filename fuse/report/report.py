"""The report of a run: one HTML file that opens offline, without scripts or requests.

Everything that is a number is computed here or in `charts`; ``report*.j2`` lay it out. What comes
from data (texts, guids, class names, the command) reaches the page only through jinja2's
autoescape.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from fuse.figures.predictions import Predictions
from fuse.figures.probability_resampling import probability_bootstrap
from fuse.figures.reliability import calibration
from fuse.figures.resampling import LEVEL, RESAMPLES, SEED, Interval, bootstrap
from fuse.setting import Setting

from .attention_maps import Attended, Maps
from .charts import Dots, Mark, class_colours, learning_curves, search_history, surface, tick_labels
from .run_files import FIGURES, RunFiles, read_run
from .thumbnails import heated, thumbnail

GALLERY = 8
"""Posts in each part of the gallery."""
MAX_CHARS = 600
"""Characters of a post's text that the gallery shows."""
MAX_WORDS = 8
"""Words of a post whose attention the gallery shows."""
_LEAST_SCALE = 2.0
"""Attention, as multiples of an even one, that is drawn at full strength at the least: what is
nearly even everywhere must not look like a find."""
_CHARTED = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "roc_auc")
"""Figures on one scale, of which more is better."""
_CALIBRATED = (
    "accuracy",
    "macro_f1",
    "macro_recall",
    "neg_log_loss",
    "brier",
    "calibration_error",
)
"""Figures that calibration changes."""
_LOSSES = ("neg_log_loss",)
"""Figures that are shown with their sign turned."""
_OUTER = {
    "report": "the report’s 20 %; training rows that show one of its posts are left out",
    "report-parity": "the report’s 20 %, with duplicates of its posts left in training",
    "grouped": "a stratified fifth that keeps duplicate posts together",
}
"""Outer splits in words."""
_RANDOM = "(random weights)"
_TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class Post:
    """What the gallery shows of a post."""

    text: str
    image: Path


@dataclass(frozen=True, slots=True)
class Against:
    """What the section on the loss shows."""

    said: str
    """What is compared, or why nothing is."""
    command: str = ""
    """What makes the missing run; empty where there is one."""
    recalls: dict[str, Any] | None = None
    """Of `fuse.evidence.versus.recalls`."""


Explain = Callable[[list[str]], Maps]
"""Guids → attention of their words."""


def no_maps(guids: list[str]) -> Maps:
    """Knows nothing of any post."""
    return Maps("The model was not asked which patches its words attend to.")


def render(
    folder: Path,
    posts: Mapping[str, Post],
    title: str = "",
    *,
    against: Against | None = None,
    explain: Explain = no_maps,
) -> str:
    """Writes the report of a run as the text of one HTML file.

    Args:
        folder: A run directory with ``config.json``, ``metrics.json``, ``metrics.jsonl``,
            ``env.json``, ``command.txt`` and ``predictions.csv``, and ``studies.json`` where it
            came from a search.
        posts: Text and picture by guid, for the gallery; it may lack guids.
        title: Name of the run; by default the folder's.
        against: Another run, for what the loss does.
        explain: Gives the attention of words for posts of the gallery.

    Returns:
        HTML, to be saved as UTF-8.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other; the
            message names it.
    """
    run = read_run(folder)
    classes: list[str] = run.config["classes"]
    predictions = run.predictions
    bins, error = calibration(predictions.confidence, predictions.labels == predictions.predicted)
    intervals, class_intervals = _intervals(predictions, len(classes))
    wrong, close = confident_errors(predictions), least_certain(predictions)
    shown = [predictions.guids[place] for place in dict.fromkeys([*wrong, *close])]
    maps = explain(shown)
    scores = _scores(run.metrics)
    page = _template().render(
        run=title or folder.resolve().name,
        config=run.config,
        defaults=asdict(Setting()),
        always=("fusion", "level", "modality", "loss"),
        caveats=[*run.config["notes"], *_random_weights(run.config["encoders"])],
        colours=class_colours(classes),
        env=run.env,
        command=run.command,
        metrics=run.metrics,
        scores=scores,
        compared=[key for key in _CALIBRATED if all(key in row["score"] for row in scores)],
        distinct=_distinct(run),
        figures=FIGURES,
        intervals=intervals,
        class_intervals=class_intervals,
        figure_dots=_figure_dots(run.metrics["outer"], intervals),
        charts=learning_curves(run.history, run.metrics["members"]),
        against=against or Against("No other run was given to compare with."),
        against_dots=_against_dots(against),
        bins=bins,
        calibration_error=error,
        largest_bin=max(b.rows for b in bins),
        studies=[_study(study) for study in run.studies],
        outer_said=_OUTER.get(run.config["outer"], ""),
        search_said=(
            "What the study found was not kept with this run; train it again to see it here."
            if run.config["study"]
            else "This run’s setting was given, not searched, so there is no study to show."
        ),
        maps_said=maps.said,
        mapped=bool(maps.posts),
        least_scale=_LEAST_SCALE,
        errors=_cards(wrong, predictions, posts, maps),
        uncertain=_cards(close, predictions, posts, maps),
        wrong=int((predictions.labels != predictions.predicted).sum()),
        resamples=RESAMPLES,
        seed=SEED,
        level=f"{LEVEL:.0%}",
    )
    return _printable(page)


# --- figures ------------------------------------------------------------------------------------


def _intervals(
    predictions: Predictions, classes: int
) -> tuple[dict[str, Interval | None], list[dict[str, Interval | None]]]:
    """Of every figure, and of each class's F1 and average precision."""
    found, f1 = bootstrap(predictions.labels, predictions.predicted, classes)
    more, precision = probability_bootstrap(predictions.labels, predictions.probabilities)
    return {**found, **more}, [
        {"f1": one, "average_precision": two} for one, two in zip(f1, precision, strict=True)
    ]


def _figure_dots(outer: Mapping[str, Any], intervals: Mapping[str, Interval | None]) -> Dots:
    return Dots.of(
        [
            (FIGURES[key], [Mark(outer[key], intervals[key])])
            for key in _CHARTED
            if outer[key] is not None
        ]
    )


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


def _distinct(run: RunFiles) -> dict[str, Any] | None:
    """The figures with and without outer rows that show a post which was learned from."""
    twins, predictions = run.metrics["duplicates"], run.predictions
    if twins is None:
        return None
    of = set(twins)
    kept = np.array([guid not in of for guid in predictions.guids])
    score = run.metrics["outer_without_duplicates"]
    intervals = None
    if score is not None and kept.any():
        part = Predictions(
            [guid for guid in predictions.guids if guid not in of],
            predictions.labels[kept],
            predictions.predicted[kept],
            predictions.probabilities[kept],
        )
        intervals = _intervals(part, len(run.config["classes"]))[0]
    return {"rows": len(twins), "score": score, "intervals": intervals}


def _against_dots(against: Against | None) -> dict[str, Dots] | None:
    if against is None or against.recalls is None:
        return None
    classes = against.recalls["classes"]
    return {
        "values": Dots.of(
            [
                (
                    of["name"],
                    [Mark(of["values"][k], of["intervals"][k], series=k) for k in (0, 1)],
                )
                for of in classes
            ]
        ),
        "difference": Dots.of(
            [
                (of["name"], [Mark(of["difference"], of["difference_interval"], series=1)])
                for of in classes
            ],
            0.0,
        ),
    }


def _study(study: Mapping[str, Any]) -> dict[str, Any]:
    fusions, parameters = study["by_fusion"], study["importance"]
    return {
        **study,
        "history": search_history(study),
        "count": {
            state: sum(trial["state"] == state for trial in study["trials"])
            for state in ("complete", "pruned", "fail")
        },
        "fusion_dots": Dots.of([(r["value"], [Mark(r["score"])]) for r in fusions])
        if fusions
        else None,
        "importance_dots": Dots.of(
            [
                (r["parameter"], [Mark(r["median"], Interval(r["low"], r["high"]))])
                for r in parameters
            ],
            0.0,
        )
        if parameters
        else None,
        "surface": surface(study["alpha_beta"]),
    }


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


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["labels"] = tick_labels
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "−")
    environment.filters["signed_span"] = lambda interval: _signed(interval.low, interval.high)
    environment.filters["figure"] = _figure
    environment.filters["span"] = _span
    return environment.get_template(_TEMPLATE)


def _figure(value: float | None, key: str = "") -> str:
    """A figure by its key, as it is shown."""
    if value is None:
        return "–"
    return f"{-value if key in _LOSSES else value:.3f}"


def _span(interval: Interval | None, key: str = "") -> str:
    if interval is None:
        return "–"
    low, high = interval.low, interval.high
    if key in _LOSSES:
        low, high = -high, -low
    return _signed(low, high) if low < 0 else f"{low:.3f}–{high:.3f}"


def _signed(low: float, high: float) -> str:
    return f"{low:+.3f} … {high:+.3f}".replace("-", "−")


def _plain(value: object) -> str:
    """A setting's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value or "–"
    return json.dumps(value, ensure_ascii=False)


def _printable(page: str) -> str:
    """The page without what HTML or UTF-8 cannot hold (control characters, lone surrogates)."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", page)


def _random_weights(encoders: Mapping[str, str]) -> list[str]:
    """The sentence that names encoders without trained weights, if there are any."""
    names = [f"{m} encoder" for m, label in encoders.items() if label.strip().endswith(_RANDOM)]
    return [f"Random weights: {' and '.join(names)} not pretrained."] if names else []


def _cards(
    places: NDArray[np.int64], predictions: Predictions, posts: Mapping[str, Post], maps: Maps
) -> list[dict[str, Any]]:
    """What the gallery shows of each row."""
    cards = []
    for place in places.tolist():
        guid = predictions.guids[place]
        post = posts.get(guid)
        picture, note = (None, "") if post is None else thumbnail(post.image)
        cards.append(
            {
                "guid": guid,
                "text": None if post is None else post.text[:MAX_CHARS],
                "cut": post is not None and len(post.text) > MAX_CHARS,
                "picture": picture,
                "note": note,
                "attention": _attention(maps.posts[guid]) if guid in maps.posts else None,
                "label": int(predictions.labels[place]),
                "predicted": int(predictions.predicted[place]),
                "probabilities": predictions.probabilities[place].tolist(),
            }
        )
    return cards


def _attention(found: Attended, most: int = MAX_WORDS) -> dict[str, Any]:
    """The words whose attention is the least even, in the order of the text, as pictures.

    All pictures of a post have one scale: full strength is its highest attention.
    """
    cells = found.weights.shape[1] * found.weights.shape[2]
    times = found.weights * cells  # 1: as much as every cell would get of an even attention
    peaks = times.max(axis=(1, 2))
    scale = max(_LEAST_SCALE, float(peaks.max()))
    chosen: Sequence[int] = np.sort(np.argsort(-peaks, kind="stable")[:most]).tolist()
    return {
        "scale": scale,
        "grid": f"{found.weights.shape[1]}×{found.weights.shape[2]}",
        "left_out": len(found.words) - len(chosen),
        "maps": [
            {
                "word": found.words[k],
                "peak": float(peaks[k]),
                "where": _where(times[k]),
                "picture": heated(found.picture, (times[k] - 1) / (scale - 1)),
            }
            for k in chosen
        ],
    }


def _where(times: NDArray[np.float64]) -> str:
    """Where the highest cell lies, in words."""
    row, column = np.unravel_index(int(times.argmax()), times.shape)
    up = ("top", "middle", "bottom")[int(3 * (row + 0.5) / times.shape[0])]
    side = ("left", "centre", "right")[int(3 * (column + 0.5) / times.shape[1])]
    return f"{up} {side}"
