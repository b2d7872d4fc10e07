"""The model card of an export: what the model is, what it was made from, what it is worth."""

from __future__ import annotations

from collections.abc import Sequence

from .card_facts import RANDOM, Card
from .card_tables import encoders_section, figures_section, labels_section, plain, settings_section


def render_card(card: Card) -> str:
    """The card as Markdown under YAML metadata, as the Hugging Face hub reads them."""
    parts = [
        _metadata(card),
        f"# {plain(card.name)}\n",
        _opening(card),
        _usage(card),
        labels_section(card),
        figures_section(card),
        _data(card),
        encoders_section(card),
        settings_section(card),
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
            dataset_type=plain(card.data),
            dataset_name=plain(card.data),
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
    tags += ["random-weights"] if any(c.endswith(RANDOM) for c in card.caveats) else []
    data = ModelCardData(
        library_name="mmsa",
        tags=tags,
        model_name=plain(card.name),
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
        lines += ["", *(f"> **Note:** {plain(caveat)}." for caveat in card.caveats)]
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


def _data(card: Card) -> str:
    return (
        f"## Data\n\n{plain(card.data)}: {card.metrics['training_rows']} rows to learn from (fold "
        f"by fold), {card.metrics['outer']['rows']} that judged. Texts were read as "
        f"`{card.exported['settings']['data']['encoding']}`.\n"
    )


def _limits(card: Card) -> str:
    settings = [model["setting"] for model in card.exported["models"]]
    lines = [
        "Sentiment as the annotators of the data saw it; other sources, languages and times were "
        "not measured, nor were differences between groups of people.",
        "The intervals hold the chance of which rows judged, not that of training again.",
    ]
    rare = min(card.metrics["outer"]["per_class"].items(), key=lambda item: item[1]["support"])
    lines.append(
        f"The class {plain(rare[0])} has {rare[1]['support']} judging rows: its figures are the "
        "least certain."
    )
    if any(s["modality"] == "both" and not s["modality_dropout"] for s in settings):
        lines.append("It learned from whole posts only; half posts are answered, untested.")
    limit = card.exported["settings"]["text"]["max_tokens"]
    lines.append(f"Texts are read up to {limit} tokens at most.")
    lines += [
        f"{plain(caveat)}: the figures say nothing about real use." for caveat in card.caveats
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _versions(card: Card) -> str:
    named = ", ".join(f"{name} {version}" for name, version in card.packages.items())
    return f"## Made with\n\nmmsa {card.exported['mmsa_version']}; {named}.\n"


def _shape(shape: Sequence[str | int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(plain, names[:-1])) + f" or {plain(names[-1])}"
