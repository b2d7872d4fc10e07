"""The model card of an export: what the model is, what it was made from, what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from fuse.figures.record import Interval
from fuse.figures.records import RunFigures
from fuse.setting import Setting
from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.shown import in_markdown
from mmsa_cache.version import __version__

_FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "neg_log_loss": "log-loss",
    "calibration_error": "expected calibration error",
}
"""Figures of the card's table, by their key."""


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that the card says."""

    name: str
    record: RunRecord
    """Of the export."""
    figures: RunFigures
    data: str
    """Name of the data folder."""
    packages: Mapping[str, str]
    """Versions by name."""
    onnx_inputs: Mapping[str, Sequence[str | int]]
    """Shapes by name; none without an ONNX graph."""
    onnx_difference: float | None


def render_card(card: Card) -> str:
    """The card as Markdown under YAML metadata, as the Hugging Face hub reads them.

    Every value in it is escaped: Jinja's ``finalize`` sees each.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        finalize=in_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    record, outer = card.record, card.figures.outer
    random = [
        identity.label
        for named in record.encoders.values()
        for identity in named.values()
        if identity.random_weights
    ]
    judged = {name: of.support for name, of in outer.per_class.items() if of.support}
    rarest = min(judged, key=lambda name: judged[name])
    text = templates.get_template("card.md.j2").render(
        card=card,
        record=record,
        figures=card.figures,
        caveats=list(dict.fromkeys([*record.notes, *random])),
        rows=_rows(card.figures),
        class_intervals={name: _f1_interval(card.figures, name) for name in record.classes},
        cross_validated=is_cross_validation(record.protocol.outer),
        changed=[_changed(model.setting) for model in record.models],
        rarest=rarest,
        whole_only=any(
            model.setting.get("modality", "both") == "both"
            and not model.setting.get("modality_dropout")
            for model in record.models
        ),
        version=__version__,
    )
    return f"---\n{_metadata(card, bool(random))}\n---\n\n{text}"


def _metadata(card: Card, random: bool) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = in_markdown(card.data)
    outer, intervals = card.figures.outer, card.figures.intervals
    found: list[tuple[str, str, float, Interval | None]] = [
        ("accuracy", "accuracy", outer.accuracy, intervals.accuracy if intervals else None),
        ("f1", "macro F1", outer.macro_f1, intervals.macro_f1 if intervals else None),
    ]
    results = [
        EvalResult(
            task_type="image-text-classification",
            task_name="Sentiment of image-text posts",
            dataset_type=data,
            dataset_name=data,
            dataset_split=in_markdown(card.record.protocol.outer),
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            metric_args=None if interval is None else {"ci95": [interval.low, interval.high]},
        )
        for kind, name, value, interval in found
    ]
    tags = ["multimodal", "image-text", "sentiment-analysis"]
    metadata = ModelCardData(
        library_name="mmsa",
        tags=[*tags, "random-weights"] if random else tags,
        model_name=in_markdown(card.name),
        eval_results=results,
    )
    return metadata.to_yaml().strip()


def _rows(figures: RunFigures) -> list[tuple[str, str, str, str]]:
    """Title, calibrated value, its interval and the uncalibrated value of each figure."""
    rows = []
    for key, title in _FIGURES.items():
        value = getattr(figures.outer, key)
        if value is not None:
            interval = getattr(figures.intervals, key, None)
            uncalibrated = getattr(figures.outer_uncalibrated, key, None)
            rows.append((title, _number(value), _interval(interval), _number(uncalibrated)))
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{abs(value):.4f}"  # the log-loss is stored negated


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    low, high = sorted((abs(interval.low), abs(interval.high)))
    return f"{low:.4f} … {high:.4f}"


def _f1_interval(figures: RunFigures, name: str) -> str:
    return _interval(figures.intervals.per_class[name].f1 if figures.intervals else None)


def _changed(setting: Mapping[str, object]) -> dict[str, object]:
    """Values of a setting that are not the defaults."""
    defaults = asdict(Setting())
    return {key: value for key, value in setting.items() if defaults.get(key) != value}
