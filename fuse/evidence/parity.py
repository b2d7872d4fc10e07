"""The report's own tables and figure, and the same cells trained here, side by side.

The report is "多模态情感分析" (multimodal sentiment analysis of tweets). Its encoders are BERT-base
and SwinV2-base, which its code fine-tunes; its figures are those of the epoch that is best on the
very rows that they are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.setting import Setting

from .ablation import Cell, Outcome, changes, effective

MODALITIES = ("text", "image", "both")
FIGURES = {
    "accuracy": "accuracy",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "macro-F1",
}
JUDGED_ROWS = (83, 250, 467)
"""Rows of each class in the report's validation split, the rarest first."""

# Accuracy and macro precision, recall, F1 (0–1) of the report, by fusion and modality.
REPORT: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "concat": {
        "text": (0.7025, 0.6205, 0.5742, 0.5877),
        "image": (0.6663, 0.5796, 0.5310, 0.5461),
        "both": (0.7188, 0.6185, 0.6049, 0.6066),
    },
    "combine": {
        "text": (0.6987, 0.6319, 0.5338, 0.5309),
        "image": (0.6600, 0.5743, 0.4995, 0.5152),
        "both": (0.7275, 0.6441, 0.5820, 0.5939),
    },
    "attention": {
        "text": (0.7025, 0.6148, 0.5977, 0.6038),
        "image": (0.6538, 0.5806, 0.5302, 0.5456),
        "both": (0.6450, 0.5512, 0.5409, 0.5455),
    },
    "attention_concat": {
        "text": (0.7050, 0.6399, 0.5884, 0.5942),
        "image": (0.6650, 0.5911, 0.5243, 0.5411),
        "both": (0.7550, 0.6938, 0.6512, 0.6713),
    },
    "attention_combine": {
        "text": (0.7087, 0.6425, 0.5927, 0.6168),
        "image": (0.6650, 0.5921, 0.5227, 0.5553),
        "both": (0.7538, 0.6889, 0.6526, 0.6703),
    },
    "encoder": {
        "text": (0.7087, 0.6417, 0.5935, 0.6167),
        "image": (0.6412, 0.5552, 0.5227, 0.5385),
        "both": (0.7525, 0.6912, 0.6498, 0.6698),
    },
}
# The settings that the report found best for each fusion.
BEST: dict[str, dict[str, Any]] = {
    "concat": {"text_dim": 256, "image_dim": 128, "dropout": 0.25, "learning_rate": 1e-4},
    "combine": {"text_dim": 256, "image_dim": 256, "dropout": 0.25, "learning_rate": 1e-4},
    "attention": {"text_dim": 512, "image_dim": 512, "dropout": 0.2, "learning_rate": 2e-5},
    "attention_concat": {
        "text_dim": 128,
        "image_dim": 128,
        "dropout": 0.15,
        "learning_rate": 8e-5,
    },
    "attention_combine": {
        "text_dim": 128,
        "image_dim": 128,
        "dropout": 0.15,
        "learning_rate": 8e-5,
    },
    "encoder": {"text_dim": 256, "image_dim": 256, "dropout": 0.15, "learning_rate": 5e-6},
}
# Accuracy with cross-entropy and with ACB, where the report or its logs give both.
FIGURE_3: dict[str, tuple[float, float]] = {
    "attention": (0.6700, 0.6663),
    "attention_concat": (0.7462, 0.7412),
    "attention_combine": (0.7325, 0.7450),
    "encoder": (0.7250, 0.7350),
}
FIGURE_3_NEUTRAL: dict[str, tuple[float, float]] = {"attention_concat": (0.3133, 0.4337)}
"""Recall of the class neutral with cross-entropy and with ACB."""
LOSSES = ("ce", "acb")


def cells(assignments: Mapping[str, Any], text_pool: str, image_pool: str) -> list[Cell]:
    """The report's cells: six fusions by modality with ACB, and both modalities with CE too.

    Args:
        assignments: Values over the report's own.
        text_pool: The cached vector at the text's first position.
        image_pool: The same of the image.
    """
    found = []
    for fusion, best in BEST.items():
        for modality in MODALITIES:
            for loss in LOSSES if modality == "both" else LOSSES[1:]:
                values = {
                    "fusion": fusion,
                    "modality": modality,
                    "loss": loss,
                    "metric": "accuracy",
                    "text_pool": text_pool,
                    "image_pool": image_pool,
                    **best,
                }
                labels = {"fusion": fusion, "modality": modality, "loss": loss}
                found.append(Cell(labels, effective(Setting(**values | dict(assignments)))))
    return found


def pairs(
    table: Sequence[Cell], outcome: Outcome, labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """What ACB changes for each fusion with both modalities, see `ablation.changes`."""
    by_loss = {
        (cell.labels["fusion"], cell.labels["loss"]): outcome.predicted[cell.setting]
        for cell in table
        if cell.labels["modality"] == "both"
    }
    return {
        fusion: changes(by_loss[fusion, "ce"], by_loss[fusion, "acb"], labels, names)
        for fusion in BEST
    }


def page(record: Mapping[str, Any], picture: str) -> str:
    """The tables as Markdown.

    Args:
        record: ``cells`` (of `ablation.tabulate`), ``changes`` (of `pairs`), and how they came
            about, see `mmsa_cache.compose.ablate.report`.
        picture: File name of figure 3.
    """
    found = _by_labels(record["cells"])
    both = [(fusion, "both") for fusion in BEST]
    every = [(fusion, modality) for fusion in BEST for modality in MODALITIES]
    rare = record["rarest_class"]
    parts = [
        "# The report's tables, and the same cells here",
        "",
        *[f"> {note}" for note in record["notes"]],
        *([""] if record["notes"] else []),
        *(f"- {title}: {text}" for title, text in _how(record).items()),
        "",
        "Each pair of columns is the report's figure and the one here: the mean of "
        f"{record['members']} training(s) ± the deviation of single ones. Intervals are of this "
        f"mean, over {record['resamples']:,} resamples of the judged rows; they do not hold the "
        "chance of training again.",
        "",
        "## Table 1: six fusions, text and image",
        "",
        *_main_table(both, found),
        "",
        "## Table 2: what each modality gives",
        "",
        "With one modality no fusion is used; rows of one modality differ by the dimensions, "
        "dropout and learning rate that go with the fusion.",
        "",
        *_main_table(every, found, with_modality=True),
        "",
        "## Figure 3: cross-entropy and the adaptive class-balanced loss",
        "",
        f"![Accuracy and recall of {rare} with either loss]({picture})",
        "",
        *_loss_table(record, found),
        "",
    ]
    return "\n".join(parts)


def _how(record: Mapping[str, Any]) -> dict[str, str]:
    stop = (
        "the epoch that is best on the judged rows themselves, as in the report"
        if record["stop"] == "judged"
        else "an epoch chosen on rows held out of the training rows (the report's figures are of "
        "the epoch that is best on the judged rows)"
    )
    rows = ", ".join(f"{count} {name}" for name, count in record["judged"].items())
    return {
        "Command": f"`{record['command']}`",
        "Encoders": f"{record['encoders']['text']} and {record['encoders']['image']}, frozen (the "
        "report: BERT-base and SwinV2-base, which its code fine-tunes)",
        "Vectors": f"`{record['pools']['text']}` of the text, `{record['pools']['image']}` of the "
        f"image, level `{record['level']}`",
        "Settings": "the best that the report found for each fusion"
        + (f", with {', '.join(record['assignments'])}" if record["assignments"] else "")
        + "; its learning rates (5e-6 … 1e-4) were found while the encoders learned too, here only "
        "what comes after them does",
        "Rows": f"the outer split `{record['outer']}`, {sum(record['judged'].values())} judged "
        f"rows ({rows})",
        "Trainings": f"{record['folds']} fold(s) × {record['seeds']} seed(s) a cell; kept is "
        f"{stop}",
        "Time": f"{record['seconds']:.0f} s by {record['workers']} worker(s) on "
        f"{record['device']}, {record['trainings']} trainings"
        + (f" ({record['done_before']} of them before)" if record["done_before"] else "")
        + f", {record['seconds_of_trainings']:.0f} s of training in all",
    }


def _by_labels(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {
        (row["labels"]["fusion"], row["labels"]["modality"], row["labels"]["loss"]): row
        for row in rows
    }


def _main_table(
    keys: Sequence[tuple[str, str]],
    found: Mapping[tuple[str, str, str], Mapping[str, Any]],
    *,
    with_modality: bool = False,
) -> list[str]:
    header = ["fusion", *(["modality"] if with_modality else [])]
    for title in FIGURES.values():
        header += [f"{title}, report", "here"]
        header += ["95 %"] if title in ("accuracy", "macro-F1") else []
    lines = []
    for fusion, modality in keys:
        row = found[fusion, modality, "acb"]
        cells = [fusion, *([modality] if with_modality else [])]
        for figure, theirs in zip(FIGURES, REPORT[fusion][modality], strict=True):
            cells += [f"{theirs:.4f}", _mean(row[figure])]
            cells += [_interval(row[figure])] if figure in ("accuracy", "macro_f1") else []
        lines.append(cells)
    return markdown(header, lines)


def _loss_table(
    record: Mapping[str, Any], found: Mapping[tuple[str, str, str], Mapping[str, Any]]
) -> list[str]:
    rare = record["rarest_class"]
    header = ["fusion", "CE → ACB, report", "CE → ACB here", "difference, 95 %"]
    header += [f"recall of {rare}, report", "here", "difference, 95 %"]
    lines = []
    for fusion in BEST:
        ce, acb = (found[fusion, "both", loss] for loss in LOSSES)
        change = record["changes"][fusion]
        lines.append(
            [
                fusion,
                _arrow(FIGURE_3.get(fusion)),
                _arrow((ce["accuracy"]["mean"], acb["accuracy"]["mean"])),
                _signed(change["accuracy"]),
                _arrow(FIGURE_3_NEUTRAL.get(fusion)),
                _arrow((ce["recall"][rare]["mean"], acb["recall"][rare]["mean"])),
                _signed(change[f"recall of {rare}"]),
            ]
        )
    return markdown(header, lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines; first column left, the others right."""
    sides = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, sides, *([text.replace("|", "\\|") for text in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _mean(figure: Mapping[str, Any]) -> str:
    deviation = figure["deviation"]
    return f"{figure['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['low']:.3f} … {figure['high']:.3f}"


def _signed(change: Mapping[str, float]) -> str:
    return f"{change['mean']:+.4f} ({change['low']:+.3f} … {change['high']:+.3f})"


def _arrow(values: tuple[float, float] | None) -> str:
    return "–" if values is None else f"{values[0]:.4f} → {values[1]:.4f}"


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 760, 300, 52, 34, 236, 744
_COLOURS = {"ce": "#5f6b77", "acb": "#1f6fb2"}
_NAMES = {"ce": "cross-entropy", "acb": "ACB"}


def picture(record: Mapping[str, Any]) -> str:
    """Figure 3 as SVG: bars with intervals, diamonds where the report gives a figure."""
    found = _by_labels(record["cells"])
    rare = record["rarest_class"]
    panels = [
        ("Accuracy", lambda row: row["accuracy"], FIGURE_3),
        (f"Recall of {rare}", lambda row: row["recall"][rare], FIGURE_3_NEUTRAL),
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT * len(panels)}" '
        'role="img" aria-labelledby="t d" font-family="sans-serif" font-size="12">',
        '<title id="t">Cross-entropy and ACB by fusion</title>',
        f'<desc id="d">Accuracy and recall of {escape(rare)}, text and image; the same figures '
        "stand in the table beside.</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT * len(panels)}" fill="#ffffff"/>',
    ]
    for place, (title, figure_of, theirs) in enumerate(panels):
        parts.append(f'<g transform="translate(0 {_HEIGHT * place})" fill="#222">')
        parts += _panel(title, found, figure_of, theirs)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    title: str,
    found: Mapping[tuple[str, str, str], Mapping[str, Any]],
    figure_of: Any,
    theirs: Mapping[str, tuple[float, float]],
) -> list[str]:
    def y(value: float) -> float:
        return round(_BOTTOM - value * (_BOTTOM - _TOP), 1)

    parts = [f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for step in range(0, 11, 2):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y(step / 10)}" y2="{y(step / 10)}" '
            'stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(step / 10) + 4}" text-anchor="end">{step / 10:.1f}</text>'
        )
    each = (_RIGHT - _LEFT) / len(BEST)
    for number, fusion in enumerate(BEST):
        middle = _LEFT + (number + 0.5) * each
        parts.append(
            f'<text x="{middle:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{fusion}</text>'
        )
        for place, loss in enumerate(LOSSES):
            figure = figure_of(found[fusion, "both", loss])
            x = middle + (place - 0.5) * 36
            parts.append(
                f'<rect x="{x - 15:.1f}" y="{y(figure["mean"])}" width="30" '
                f'height="{_BOTTOM - y(figure["mean"]):.1f}" fill="{_COLOURS[loss]}"/>'
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(figure["low"])}" '
                f'y2="{y(figure["high"])}" stroke="#222" stroke-width="2"/>'
                f'<text x="{x:.1f}" y="{_BOTTOM - 6}" text-anchor="middle" font-size="10" '
                f'fill="#fff">{figure["mean"]:.3f}</text>'
            )
            if fusion in theirs:
                at = y(theirs[fusion][place])
                parts.append(
                    f'<path d="M{x + 11:.1f} {at - 5:.1f}l5 5l-5 5l-5 -5z" fill="#fff" '
                    'stroke="#b3261e" stroke-width="1.5"/>'
                )
    for place, (colour, name) in enumerate(
        [(_COLOURS[loss], _NAMES[loss]) for loss in LOSSES] + [("#b3261e", "the report's figure")]
    ):
        x = _LEFT + 150 * place
        parts.append(
            f'<rect x="{x}" y="{_BOTTOM + 34}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{_BOTTOM + 44}">{name}</text>'
        )
    return parts
