"""The model card of an export: the model, its training data and its scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from fuse.figures.record import Interval
from fuse.figures.records import RunFigures
from mmsa_cache.config.hub_copy import HubData, hub_address
from mmsa_cache.config.hub_name import PREFIX
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.escaping import escape_markdown
from mmsa_cache.runs.record import RunRecord
from mmsa_cache.version import __version__

from ..runs import changed_fields

_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "neg_log_loss": "log-loss",
    "calibration_error": "expected calibration error",
}
"""Titles of the metrics of the card's table, by key."""
_HUB_METRICS: list[tuple[str, str, str, dict[str, object]]] = [
    ("accuracy", "accuracy", "accuracy", {}),
    ("macro_f1", "f1", "macro F1", {"average": "macro"}),
    ("neg_log_loss", "log_loss", "log-loss", {}),
]
"""Metrics of the metadata: key, name at the hub, title, arguments."""


@dataclass(frozen=True, slots=True)
class CardContent:
    """Content of a model card."""

    name: str
    record: RunRecord
    """Record of the export."""
    figures: RunFigures
    data: DataSettings
    """Training data."""
    packages: Mapping[str, str]
    """Versions by name."""
    onnx_inputs: Mapping[str, Sequence[str | int]]
    """Shapes by name; empty without an ONNX graph."""
    onnx_difference: float | None
    repository: str | None
    """Hub repository, if it is pushed."""
    license: str | None
    languages: Sequence[str]

    @property
    def hub_data(self) -> HubData | None:
        """The hub data set that the model was trained on, if any."""
        root = self.data.root
        address = None if root is None else hub_address(root.resolve())
        name = address.removeprefix(PREFIX) if address else self.data.hub_name
        return HubData.of(name) if name else None

    @property
    def data_name(self) -> str:
        """Name of the hub data set, or of the data folder."""
        if self.hub_data is not None:
            return self.hub_data.repository
        return self.data.root.name if self.data.root else "unnamed data"


def render_card(card: CardContent) -> str:
    """Renders the card: YAML metadata and Markdown, as the Hugging Face hub reads them.

    Jinja's ``finalize`` escapes every value.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        finalize=escape_markdown,
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
        changed=[changed_fields(model.setting) for model in record.models],
        rarest=rarest,
        whole_only=any(
            model.setting.get("modality", "both") == "both"
            and not model.setting.get("modality_dropout")
            for model in record.models
        ),
        version=__version__,
    )
    return f"---\n{_metadata(card, bool(random))}\n---\n\n{text}"


def _metadata(card: CardContent, random: bool) -> str:
    """The fields of https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    from huggingface_hub import EvalResult, ModelCardData

    name, data = card.data_name, card.hub_data
    outer, intervals = card.figures.outer, card.figures.intervals
    task = _task(card.record)
    results = [
        EvalResult(
            task_type=task,
            task_name="Sentiment of image-text posts",
            # The hub allows letters, digits, "-", "_", "." and "/".
            dataset_type=re.sub(r"[^\w./-]+", "-", name, flags=re.ASCII),
            dataset_name=escape_markdown(name),
            dataset_revision=data.revision if data else None,
            dataset_split=escape_markdown(card.record.protocol.outer),
            metric_type=kind,
            metric_name=title,
            metric_value=abs(value),  # the log-loss is stored negated
            metric_args=args | _ci95(getattr(intervals, key, None)),
            verified=False,
        )
        for key, kind, title, args in _HUB_METRICS
        if (value := getattr(outer, key)) is not None
    ]
    tags = ["multimodal", "image-text", "sentiment-analysis"]
    metadata = ModelCardData(
        license=card.license,
        language=[*card.languages] or None,
        library_name="mmsa",
        pipeline_tag=task,
        tags=[*tags, "random-weights"] if random else tags,
        datasets=[data.repository] if data else None,
        model_name=escape_markdown(card.name),
        eval_results=results,
    )
    return metadata.to_yaml().strip()


def _task(record: RunRecord) -> str:
    """The hub has no task for classifying a text and a picture together."""
    only_images = all(model.setting.get("modality") == "image" for model in record.models)
    return "image-classification" if only_images else "text-classification"


def _ci95(interval: Interval | None) -> dict[str, list[float]]:
    if interval is None:
        return {}
    return {"ci95": sorted((abs(interval.low), abs(interval.high)))}


def _rows(figures: RunFigures) -> list[tuple[str, str, str, str]]:
    """Title, calibrated score, its interval and uncalibrated score of each metric."""
    rows = []
    for key, title in _METRICS.items():
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
