"""Tables of the model card."""

from __future__ import annotations

from dataclasses import asdict

from fuse.setting import Setting
from mmsa_cache.data.splits import is_cross_validation

from .card_facts import Card


def labels_section(card: Card) -> str:
    rows = "\n".join(f"| {c} | {plain(n)} |" for c, n in card.exported["id2label"].items())
    return f"## Labels\n\n| code | label |\n|---|---|\n{rows}\n"


def figures_section(card: Card) -> str:
    outer, uncalibrated = card.metrics["outer"], card.metrics["outer_uncalibrated"]
    rows = [
        f"| {title} | {abs(outer[key]):.4f} | {_interval(card, key)} | "
        f"{abs(uncalibrated[key]):.4f} |"
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
        f"| {plain(name)} | {of['support']} | {of['precision']:.4f} | {of['recall']:.4f} | "
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
            f"On {outer['rows']} rows of {plain(card.data)} (outer split "
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


def encoders_section(card: Card) -> str:
    rows = []
    for modality, fields in card.exported["encoder_fields"].items():
        label = plain(card.exported["encoders"][modality])
        part = {"text": ("tokenizer", "max_tokens"), "image": ("size", "crop", "mean", "std")}
        more = ", ".join(f"{k} {plain(fields[k])}" for k in part[modality] if k in fields)
        rows.append(
            f"| {modality} | {label} | `{plain(fields['weights'])}` | layer {fields['layer']}, "
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


def settings_section(card: Card) -> str:
    default = asdict(Setting())
    lines = ["## Settings\n"]
    for number, model in enumerate(card.exported["models"], start=1):
        own = {k: v for k, v in model["setting"].items() if default.get(k) != v}
        shown = ", ".join(f"`{k} = {plain(v)}`" for k, v in own.items()) or "the defaults"
        lines.append(f"- setting {number}: {shown}")
    exported = card.exported
    lines += [
        f"- folds {exported['folds']}, seeds {exported['seeds']}, refit {exported['refit']}, "
        f"seed {exported['seed']}",
        f"- temperature {exported['calibration']['temperature']:.4f}, offsets "
        f"{[round(o, 4) for o in exported['calibration']['offsets']]}",
        *(
            f"- chosen by study {plain(s['name'])}, trial {s['trial']}"
            for s in exported["studies"]
            if s["trial"] is not None
        ),
        "",
        "What is not named has mmsa's default.\n",
    ]
    return "\n".join(lines)


def _interval(card: Card, key: str) -> str:
    if key not in card.intervals:
        return "–"
    low, high = card.intervals[key]
    return f"{low:.4f} … {high:.4f}"


def plain(value: object) -> str:
    """Text from data or settings, with nothing in it that Markdown or HTML takes as its own."""
    text = " ".join(str(value).split())
    for character in "\\`|*[]<>":
        text = text.replace(character, f"&#{ord(character)};")
    return text
