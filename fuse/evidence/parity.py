"""The report's tables beside the same cells trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fuse.figures.study import Value
from fuse.setting import complete
from mmsa_cache.escaping import escape_markdown, markdown_code

from .ablation import Outcome
from .cells import Cell, without_unused
from .records import Change, Figure, ParityRecord
from .report_figures import (
    BEST,
    FIGURE_3,
    FIGURE_3_NEUTRAL,
    FIGURES,
    LOSSES,
    MODALITIES,
    REPORT,
    TRAINING,
)
from .tabulate import metric_changes


def report_cells(assignments: Mapping[str, Value], text_pool: str, image_pool: str) -> list[Cell]:
    """The report's cells: six fusions by modality with ACB, both modalities with CE too.

    Args:
        assignments: Values that override the report's.
        text_pool: The cached vector at the text's first position.
        image_pool: The same of the image.
    """
    pools = {"text_pool": text_pool, "image_pool": image_pool}
    cells = []
    for fusion, best in BEST.items():
        for modality in MODALITIES:
            for loss in LOSSES if modality == "both" else LOSSES[1:]:
                labels = {"fusion": fusion, "modality": modality, "loss": loss}
                values = {**labels, **pools, **TRAINING, **best, **assignments}
                cells.append(Cell(labels, without_unused(complete(values))))
    return cells


def loss_changes(
    table: Sequence[Cell],
    outcome: Outcome,
    labels: NDArray[np.int64],
    names: Sequence[str],
    groups: NDArray[np.int64],
) -> dict[str, dict[str, Change]]:
    """Change by ACB for each fusion with both modalities, see `tabulate.metric_changes`."""
    by_loss = {
        (cell.labels["fusion"], cell.labels["loss"]): outcome.predicted[cell.setting]
        for cell in table
        if cell.labels["modality"] == "both"
    }
    return {
        fusion: metric_changes(by_loss[fusion, "ce"], by_loss[fusion, "acb"], labels, names, groups)
        for fusion in BEST
    }


def render_page(record: ParityRecord, picture: str) -> str:
    """Renders the tables as Markdown.

    Args:
        record: The cells, and how they were trained.
        picture: File name of figure 3.
    """
    ablation = record.ablation
    lines = [
        "# The report's tables, and the same cells here",
        "",
        *[f"> {escape_markdown(note)}" for note in ablation.notes],
        *([""] if ablation.notes else []),
        *(f"- {title}: {text}" for title, text in _describe(record).items()),
        "",
        "Each pair of columns is the report's figure and the one here: the mean of "
        f"{ablation.members} training(s) ± the deviation of single ones. Intervals are of this "
        f"mean, over {ablation.resamples:,} resamples of the judged rows; they do not hold the "
        "chance of training again.",
        "",
        "## Table 1: six fusions, text and image",
        "",
        *_main_table([(fusion, "both") for fusion in BEST], record),
        "",
        "## Table 2: what each modality gives",
        "",
        "With one modality no fusion is used; rows of one modality differ by the dimensions, "
        "dropout and learning rate that go with the fusion.",
        "",
        *_main_table(
            [(fusion, modality) for fusion in BEST for modality in MODALITIES],
            record,
            with_modality=True,
        ),
        "",
        "## Figure 3: cross-entropy and the adaptive class-balanced loss",
        "",
        f"![Accuracy and recall of {escape_markdown(record.rarest_class)} with either loss]"
        f"({quote(picture)})",
        "",
        *_loss_table(record),
        "",
    ]
    return "\n".join(lines)


def _describe(record: ParityRecord) -> dict[str, str]:
    ablation, protocol = record.ablation, record.ablation.protocol
    stop = (
        "the epoch that is best on the judged rows themselves, as in the report"
        if protocol.stop == "judged"
        else "an epoch chosen on rows held out of the training rows (the report's figures are of "
        "the epoch that is best on the judged rows)"
    )
    rows = ", ".join(f"{count} {escape_markdown(name)}" for name, count in ablation.judged.items())
    return {
        "Command": markdown_code(ablation.command),
        "Encoders": f"{escape_markdown(' and '.join(ablation.encoders.values()))}, frozen (the "
        "report: BERT-base and SwinV2-base, which its code fine-tunes)",
        "Vectors": f"`{record.pools['text']}` of the text, `{record.pools['image']}` of the "
        f"image, level `{record.level}`",
        "Settings": "the best that the report found for each fusion"
        + (f", with {escape_markdown(', '.join(record.assignments))}" if record.assignments else "")
        + "; its learning rates (5e-6 … 1e-4) were found while the encoders learned too, here only "
        "what comes after them does",
        "Rows": f"the outer split `{protocol.outer}`, {sum(ablation.judged.values())} judged "
        f"rows ({rows})",
        "Trainings": f"{protocol.folds} fold(s) × {protocol.seeds} seed(s) a cell; kept is {stop}",
        "Time": f"{ablation.seconds:.0f} s by {ablation.workers} worker(s) on "
        f"{ablation.device}, {ablation.trainings} trainings"
        + (f" ({ablation.done_before} of them before)" if ablation.done_before else "")
        + f", {ablation.seconds_of_trainings:.0f} s of training in all",
    }


def _main_table(
    keys: Sequence[tuple[str, str]], record: ParityRecord, *, with_modality: bool = False
) -> list[str]:
    header = ["fusion", *(["modality"] if with_modality else [])]
    for title in FIGURES.values():
        header += [f"{title}, report", "here"]
        header += ["95 %"] if title in ("accuracy", "macro-F1") else []
    lines = []
    for fusion, modality in keys:
        cell = record.cell(fusion, modality, "acb")
        line = [fusion, *([modality] if with_modality else [])]
        for key, theirs in zip(FIGURES, REPORT[fusion][modality], strict=True):
            figure = cell.figure(key)
            line += [f"{theirs:.4f}", plus_minus(figure)]
            line += [format_interval(figure)] if key in ("accuracy", "macro_f1") else []
        lines.append(line)
    return markdown_table(header, lines)


def _loss_table(record: ParityRecord) -> list[str]:
    rare = record.rarest_class
    header = ["fusion", "CE → ACB, report", "CE → ACB here", "difference, 95 %"]
    header += [f"recall of {rare}, report", "here", "difference, 95 %"]
    lines = []
    for fusion in BEST:
        ce, acb = (record.cell(fusion, "both", loss) for loss in LOSSES)
        change = record.changes[fusion]
        lines.append(
            [
                fusion,
                _arrow(FIGURE_3.get(fusion)),
                _arrow((ce.accuracy.mean, acb.accuracy.mean)),
                _signed(change["accuracy"]),
                _arrow(FIGURE_3_NEUTRAL.get(fusion)),
                _arrow((ce.recall[rare].mean, acb.recall[rare].mean)),
                _signed(change[f"recall of {rare}"]),
            ]
        )
    return markdown_table(header, lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the first column is aligned left, the others right."""
    sides = ["---", *["---:"] * (len(header) - 1)]
    lines = [map(escape_markdown, header), sides, *(map(escape_markdown, row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def plus_minus(figure: Figure) -> str:
    """``0.6123 ± 0.0045``"""
    deviation = figure.deviation
    return f"{figure.mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def format_interval(figure: Figure | Change, sign: str = "") -> str:
    """``0.590 … 0.634``"""
    return f"{figure.low:{sign}.3f} … {figure.high:{sign}.3f}"


def _signed(change: Change) -> str:
    return f"{change.mean:+.4f} ({format_interval(change, '+')})"


def _arrow(values: tuple[float, float] | None) -> str:
    return "–" if values is None else f"{values[0]:.4f} → {values[1]:.4f}"
