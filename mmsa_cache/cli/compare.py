"""``mmsa compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmsa_cache.console import format_table, print_result

from .options import RUN_SOURCES, complete_run
from .output import say_notes
from .verb import Call, verb

if TYPE_CHECKING:
    from fuse.evidence.comparison import (
        Comparison,
        Difference,
        DifferingRow,
        IntervalDifference,
        PairComparison,
    )
    from fuse.figures.record import Interval


FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


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

    found = compare_runs(runs, grouped=grouped, overrides=call.overrides())
    if call.print_json(found.as_json()):
        return
    print_result(format_comparison(found.comparison, listed))
    say_notes(found.notes)


def format_comparison(found: Comparison, listed: int = 0) -> str:
    """A comparison as tables and sentences.

    Args:
        found: Of two runs a table of figures; of more a table of runs and one of all pairs.
        listed: Rows of each kind that are shown of those on which two runs differ.
    """
    interval = f"{found.level:.0%} interval"
    if len(found.pairs) == 1:
        parts = [_two(found.pairs[0], found.rows, interval)]
    else:
        parts = _many(found, interval)
    parts += [_differing(pair, listed) for pair in found.pairs if listed]
    method = (
        f"{found.rows} rows judged by every run; intervals from {found.resamples} resamples of "
        f"{found.drawn}, the same for every run."
    )
    return "\n\n".join([*parts, method])


def _two(pair: PairComparison, rows: int, interval: str) -> str:
    changes = {FIGURES["accuracy"]: pair.accuracy, FIGURES["macro_f1"]: pair.macro_f1}
    table = format_table(
        ["", pair.first, pair.second, "difference", interval],
        [
            *([title, *_values(of), _span(of, "+")] for title, of in changes.items()),
            *(
                [f"{FIGURES[key]}, decided for {rule}", *_values(of), _span(of, "+")]
                for rule, by_key in pair.decisions.items()
                for key, of in by_key.items()
            ),
            *(
                [f"recall of {name} ({of.rows} rows)", *_values(of), ""]
                for name, of in pair.recall.items()
                if of.rows
            ),
        ],
    )
    differing = _kinds(pair)
    counts = ", ".join(f"{title} ({len(found)})" for title, found in differing.items())
    total = sum(map(len, differing.values()))
    return (
        f"{table}\n\nThey differ on {total} of {rows} rows: {counts}.\n"
        f"Exact McNemar test of equal accuracy: p = {pair.mcnemar.p_value:.3g}."
    )


def _many(found: Comparison, interval: str) -> list[str]:
    titles = ["accuracy", interval, "macro-F1", interval]
    runs = [
        [
            run.run,
            f"{run.scores.accuracy:.4f}",
            _span(run.intervals["accuracy"]),
            f"{run.scores.macro_f1:.4f}",
            _span(run.intervals["macro_f1"]),
        ]
        for run in found.runs
    ]
    pairs = [
        [
            f"{pair.second} − {pair.first}",
            f"{pair.accuracy.difference:+.4f}",
            _span(pair.accuracy, "+"),
            f"{pair.macro_f1.difference:+.4f}",
            _span(pair.macro_f1, "+"),
            f"{pair.mcnemar.p_value:.3g}",
            f"{pair.mcnemar.p_holm:.3g}",
        ]
        for pair in found.pairs
    ]
    decided = [
        [
            f"{run.run}, decided for {rule}",
            f"{of.accuracy:.4f}",
            _span(of.intervals["accuracy"]),
            f"{of.macro_f1:.4f}",
            _span(of.intervals["macro_f1"]),
        ]
        for run in found.runs
        for rule, of in run.decisions.items()
    ]
    return [
        format_table(["run", *titles], [*runs, *decided]),
        format_table(["difference", *titles, "McNemar p", "p, Holm"], pairs),
    ]


def _differing(pair: PairComparison, listed: int) -> str:
    """The first rows of each kind on which two runs differ."""
    return format_table(
        ["who is right", "guid", "tag", pair.first, pair.second],
        [
            [title, row.guid, row.tag, row.first, row.second]
            for title, rows in _kinds(pair).items()
            for row in rows[:listed]
        ],
    )


def _kinds(pair: PairComparison) -> dict[str, list[DifferingRow]]:
    return {
        f"only {pair.first} right": pair.differing.only_first_right,
        f"only {pair.second} right": pair.differing.only_second_right,
        "both wrong in different ways": pair.differing.both_wrong,
    }


def _values(of: Difference) -> tuple[str, str, str]:
    return f"{of.first:.4f}", f"{of.second:.4f}", f"{of.difference:+.4f}"


def _span(interval: Interval | IntervalDifference, sign: str = "") -> str:
    return f"{interval.low:{sign}.4f} … {interval.high:{sign}.4f}"
