"""``mmsa compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, print_result

from .options import RUN_SOURCES, complete_run
from .output import format_interval, say_notes, score_cells
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.evidence.comparison import (
        Comparison,
        Difference,
        DifferingRow,
        PairComparison,
    )


_TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


@verb(*RUN_SOURCES)
def compare(
    call: Call,
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Two or more runs: names or folders; latest, best.",
            metavar="RUN",
            autocompletion=complete_run,
        ),
    ],
    grouped: Annotated[
        bool,
        typer.Option(
            "--grouped",
            help="Older runs: read the data for duplicate posts, which are resampled together.",
        ),
    ] = False,
    listed: Annotated[
        int, typer.Option("--list", min=0, help="Posts to show of each kind of difference.")
    ] = 0,
) -> None:
    """Say whether and where runs differ, on rows that all judged.

    \b
    $ mmsa compare latest best
    """
    from mmsa_cache.compose.predict.compare import compare as compare_runs

    result = compare_runs(runs, grouped=grouped, overrides=call.overrides())
    if call.print_json(result.as_json()):
        return
    print_result(_format_comparison(result.comparison, listed))
    say_notes(result.notes)


def _format_comparison(comparison: Comparison, listed: int) -> str:
    """Tables and sentences: of two runs side by side, or of more runs and all pairs of them.

    Args:
        comparison: Of two or more runs.
        listed: Most rows to list of each kind of difference.
    """
    level = f"{comparison.level:.0%} interval"
    if len(comparison.pairs) == 1:
        parts = [_format_pair(comparison.pairs[0], comparison.rows, level)]
    else:
        parts = _format_runs(comparison, level)
    parts += [_differing_rows(pair, listed) for pair in comparison.pairs if listed]
    method = (
        f"{comparison.rows} rows judged by every run; intervals from {comparison.resamples} "
        f"resamples of {comparison.drawn}, the same for every run."
    )
    return "\n\n".join([*parts, method])


def _format_pair(pair: PairComparison, rows: int, level: str) -> str:
    differences = {_TITLES[metric]: getattr(pair, metric) for metric in _TITLES} | {
        f"{_TITLES[metric]}, decided for {rule}": difference
        for rule, by_metric in pair.decisions.items()
        for metric, difference in by_metric.items()
    }
    cells = [
        [title, *_values(difference), format_interval(difference, "+")]
        for title, difference in differences.items()
    ]
    cells += [
        [f"recall of {name} ({recall.rows} rows)", *_values(recall), ""]
        for name, recall in pair.recall.items()
        if recall.rows
    ]
    table = format_table(["", pair.first, pair.second, "difference", level], cells)
    kinds = _rows_by_kind(pair)
    counts = ", ".join(f"{title} ({len(differing)})" for title, differing in kinds.items())
    total = sum(map(len, kinds.values()))
    return (
        f"{table}\n\nThey differ on {total} of {rows} rows: {counts}.\n"
        f"Exact McNemar test of equal accuracy: p = {pair.mcnemar.p_value:.3g}."
    )


def _format_runs(comparison: Comparison, level: str) -> list[str]:
    """A table of the runs and one of the pairs."""
    runs = [[run.run, *score_cells(run.scores, run.intervals)] for run in comparison.runs]
    runs += [
        [f"{run.run}, decided for {rule}", *score_cells(decision, decision.intervals)]
        for run in comparison.runs
        for rule, decision in run.decisions.items()
    ]
    pairs = []
    for pair in comparison.pairs:
        row = [f"{pair.second} − {pair.first}"]
        for difference in (pair.accuracy, pair.macro_f1):
            row += [f"{difference.difference:+.4f}", format_interval(difference, "+")]
        pairs.append([*row, f"{pair.mcnemar.p_value:.3g}", f"{pair.mcnemar.p_holm:.3g}"])
    titles = ["accuracy", level, "macro-F1", level]
    return [
        format_table(["run", *titles], runs),
        format_table(["difference", *titles, "McNemar p", "p, Holm"], pairs),
    ]


def _differing_rows(pair: PairComparison, listed: int) -> str:
    """A table of the first rows of each kind on which two runs differ."""
    return format_table(
        ["who is right", "guid", "tag", pair.first, pair.second],
        [
            [title, row.guid, row.tag, row.first, row.second]
            for title, rows in _rows_by_kind(pair).items()
            for row in rows[:listed]
        ],
    )


def _rows_by_kind(pair: PairComparison) -> dict[str, list[DifferingRow]]:
    return {
        f"only {pair.first} right": pair.differing.only_first_right,
        f"only {pair.second} right": pair.differing.only_second_right,
        "both wrong in different ways": pair.differing.both_wrong,
    }


def _values(of: Difference) -> tuple[str, str, str]:
    return f"{of.first:.4f}", f"{of.second:.4f}", f"{of.difference:+.4f}"
