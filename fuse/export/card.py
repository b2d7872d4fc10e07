"""The model card of an export: what the model is, what it was made from, what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.errors import ModelError

_RANDOM = "(random weights)"


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that the card says."""

    name: str
    exported: Mapping[str, Any]
    """``config.json`` of the export."""
    metrics: Mapping[str, Any]
    """``metrics.json`` of the run."""
    data: str
    """Name of the data folder."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % of resampled judging rows, by figure and by class as ``f1 of CLASS``."""
    packages: Mapping[str, str]
    onnx_inputs: Mapping[str, Sequence[str | int]]
    """Shapes by name; none without an ONNX graph."""
    onnx_difference: float | None

    @classmethod
    def of(
        cls,
        source: Path,
        config: Mapping[str, Any],
        exported: Mapping[str, Any],
        metrics: Mapping[str, Any],
        onnx_inputs: Mapping[str, Sequence[str | int]],
        onnx_difference: float | None,
    ) -> Card:
        """Reads the rest from the run.

        Raises:
            ModelError: A file of the run cannot be read.
        """
        import json

        from fuse.figures.predictions import read_predictions
        from fuse.figures.resampling import bootstrap

        classes = exported["classes"]
        rows = read_predictions(source / "predictions.csv", classes)
        found, of_classes = bootstrap(rows.labels, rows.predicted, len(classes))
        try:
            packages = json.loads((source / "env.json").read_bytes())["packages"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{source / 'env.json'} cannot be read: {error}") from error
        named = found | {f"f1 of {n}": i for n, i in zip(classes, of_classes, strict=True)}
        root = config["settings"]["data"].get("root")
        return cls(
            source.resolve().name,
            exported,
            metrics,
            Path(root).name if root else "unnamed data",
            {name: (interval.low, interval.high) for name, interval in named.items()},
            packages,
            onnx_inputs,
            onnx_difference,
        )

    @property
    def caveats(self) -> list[str]:
        """Synthetic data and random weights: what makes the figures mean little."""
        labels = [label for label in self.exported["encoders"].values() if label.endswith(_RANDOM)]
        return list(dict.fromkeys([*self.exported["notes"], *labels]))


def render_card(card: Card) -> str:
    """The card as Markdown under YAML metadata, as the Hugging Face hub reads them."""
    parts = [
        _metadata(card),
        f"# {_plain(card.name)}\n",
        _opening(card),
        _usage(card),
        _labels(card),
        _figures(card),
        _data(card),
        _encoders(card),
        _settings(card),
        _limits(card),
        _versions(card),
    ]
    return "\n".join(part for part in parts if part)


def _metadata(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    outer = card.metrics["outer"]
    results = [
        EvalResult(
            task_type="image-text-classification",
            task_name="Sentiment of image-text posts",
            dataset_type=_plain(card.data),
            dataset_name=_plain(card.data),
            dataset_split=card.exported["outer"],
            metric_type=kind,
            metric_name=name,
            metric_value=outer[key],
            metric_args={"ci95": list(card.intervals[key])},
        )
        for kind, name, key in (
            ("accuracy", "accuracy", "accuracy"),
            ("f1", "macro F1", "macro_f1"),
        )
    ]
    tags = ["multimodal", "image-text", "sentiment-analysis"]
    tags += ["random-weights"] if any(c.endswith(_RANDOM) for c in card.caveats) else []
    data = ModelCardData(
        library_name="mmsa",
        tags=tags,
        model_name=_plain(card.name),
        eval_results=results,
    )
    return f"---\n{data.to_yaml().strip()}\n---\n"


def _opening(card: Card) -> str:
    models, members = card.exported["models"], len(card.metrics["members"])
    fusions = ", ".join(f"`{m['setting']['fusion']}` ({m['setting']['level']})" for m in models)
    lines = [
        f"Classifies an image-text post as {_list(card.exported['classes'])}. Frozen encoders make "
        f"features of text and picture; {len(models)} trained setting(s), {fusions}, make class "
        f"probabilities of them, averaged and calibrated. {members} member(s) were trained on "
        "folds.",
    ]
    if card.caveats:
        lines += ["", *(f"> **Note:** {_plain(caveat)}." for caveat in card.caveats)]
    return "\n".join(lines) + "\n"


def _usage(card: Card) -> str:
    text = """## Use

```python
from mmsa_cache import load_model
model = load_model("FOLDER")  # this folder
print(model.predict("what a day", "picture.jpg"))
```

or `mmsa predict --run FOLDER --text "what a day" --image picture.jpg`. Text or picture may be
left out. Nothing but this folder is read, and no network where the encoders lie in it or are
installed.
"""
    if not card.onnx_inputs:
        return text
    rows = "\n".join(f"| `{name}` | {_shape(s)} |" for name, s in card.onnx_inputs.items())
    return (
        text
        + f"""
`model.onnx` is what follows the encoders, as one graph from features to `probabilities`
(batch, classes), members, temperature and offsets included. It differed from PyTorch in float32
by at most {card.onnx_difference:.1e} on generated features of whole and half posts. Features are
float32, masks and `…_present` boolean with True = real; `fuse.onnx_inputs` makes them of a
feature bank.

| input | shape |
|---|---|
{rows}
"""
    )


def _labels(card: Card) -> str:
    rows = "\n".join(f"| {c} | {_plain(n)} |" for c, n in card.exported["id2label"].items())
    return f"## Labels\n\n| code | label |\n|---|---|\n{rows}\n"


def _figures(card: Card) -> str:
    outer, plain = card.metrics["outer"], card.metrics["outer_uncalibrated"]
    rows = [
        f"| {title} | {abs(outer[key]):.4f} | {_interval(card, key)} | {abs(plain[key]):.4f} |"
        for title, key in (
            ("accuracy", "accuracy"),
            ("macro F1", "macro_f1"),
            ("macro precision", "macro_precision"),
            ("macro recall", "macro_recall"),
            ("log-loss", "neg_log_loss"),  # stored negated
            ("expected calibration error", "calibration_error"),
        )
        if key in outer
    ]
    classes = [
        f"| {_plain(name)} | {of['support']} | {of['precision']:.4f} | {of['recall']:.4f} | "
        f"{of['f1']:.4f} | {_interval(card, f'f1 of {name}')} |"
        for name, of in outer["per_class"].items()
    ]
    judged = (
        "Every row was judged once, by members that had not seen it; the model here has the "
        "members of all parts, so these are the figures of its kind, not of itself on unseen rows."
        if is_cross_validation(card.exported["outer"])
        else "These rows took part in no training and no choice made by this run."
    )
    return "\n".join(
        [
            "## Figures\n",
            f"On {outer['rows']} rows of {_plain(card.data)} (outer split "
            f"`{card.exported['outer']}`). {judged} Intervals: 95 %, by resampling these rows.\n",
            "| figure | calibrated | 95 % | uncalibrated |",
            "|---|---|---|---|",
            *rows,
            "",
            "| class | rows | precision | recall | F1 | 95 % of F1 |",
            "|---|---|---|---|---|---|",
            *classes,
            "",
        ]
    )


def _data(card: Card) -> str:
    return (
        f"## Data\n\n{_plain(card.data)}: {card.metrics['training_rows']} rows to learn from (fold "
        f"by fold), {card.metrics['outer']['rows']} that judged. Texts were read as "
        f"`{card.exported['settings']['data']['encoding']}`.\n"
    )


def _encoders(card: Card) -> str:
    rows = []
    for modality, fields in card.exported["encoder_fields"].items():
        label = _plain(card.exported["encoders"][modality])
        part = {"text": ("tokenizer", "max_tokens"), "image": ("size", "crop", "mean", "std")}
        more = ", ".join(f"{k} {_plain(fields[k])}" for k in part[modality] if k in fields)
        rows.append(
            f"| {modality} | {label} | `{_plain(fields['weights'])}` | layer {fields['layer']}, "
            f"{more} |"
        )
    return "\n".join(
        [
            "## Encoders\n",
            "Frozen; their weights are named by sha256, hub revision or seed, and checked before "
            "a prediction. Encoders in `encoders/` keep their own licences.\n",
            "| of | model | weights | input |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _settings(card: Card) -> str:
    from dataclasses import asdict

    from fuse.setting import Setting

    default = asdict(Setting())
    lines = ["## Settings\n"]
    for number, model in enumerate(card.exported["models"], start=1):
        own = {k: v for k, v in model["setting"].items() if default.get(k) != v}
        shown = ", ".join(f"`{k} = {_plain(v)}`" for k, v in own.items()) or "the defaults"
        lines.append(f"- setting {number}: {shown}")
    exported = card.exported
    lines += [
        f"- folds {exported['folds']}, seeds {exported['seeds']}, refit {exported['refit']}, "
        f"seed {exported['seed']}",
        f"- temperature {exported['calibration']['temperature']:.4f}, offsets "
        f"{[round(o, 4) for o in exported['calibration']['offsets']]}",
        *(
            f"- chosen by study {_plain(s['name'])}, trial {s['trial']}"
            for s in exported["studies"]
            if s["trial"] is not None
        ),
        "",
        "What is not named has mmsa's default.\n",
    ]
    return "\n".join(lines)


def _limits(card: Card) -> str:
    settings = [model["setting"] for model in card.exported["models"]]
    lines = [
        "Sentiment as the annotators of the data saw it; other sources, languages and times were "
        "not measured, nor were differences between groups of people.",
        "The intervals hold the chance of which rows judged, not that of training again.",
    ]
    rare = min(card.metrics["outer"]["per_class"].items(), key=lambda item: item[1]["support"])
    lines.append(
        f"The class {_plain(rare[0])} has {rare[1]['support']} judging rows: its figures are the "
        "least certain."
    )
    if any(s["modality"] == "both" and not s["modality_dropout"] for s in settings):
        lines.append("It learned from whole posts only; half posts are answered, untested.")
    limit = card.exported["settings"]["text"]["max_tokens"]
    lines.append(f"Texts are read up to {limit} tokens at most.")
    lines += [
        f"{_plain(caveat)}: the figures say nothing about real use." for caveat in card.caveats
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _versions(card: Card) -> str:
    named = ", ".join(f"{name} {version}" for name, version in card.packages.items())
    return f"## Made with\n\nmmsa {card.exported['mmsa_version']}; {named}.\n"


def _interval(card: Card, key: str) -> str:
    if key not in card.intervals:
        return "–"
    low, high = card.intervals[key]
    return f"{low:.4f} … {high:.4f}"


def _shape(shape: Sequence[str | int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_plain, names[:-1])) + f" or {_plain(names[-1])}"


def _plain(value: object) -> str:
    """Text from data or settings, with nothing in it that Markdown or HTML takes as its own."""
    text = " ".join(str(value).split())
    for character in "\\`|*[]<>":
        text = text.replace(character, f"&#{ord(character)};")
    return text
