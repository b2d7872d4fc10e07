"""``mmsa compare``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmsa_cache.console import format_table, print_result

from .output import say_notes
from .verb import Call, verb


@verb()
def compare(
    call: Call,
    runs: Annotated[list[str], typer.Argument(help="Names or folders of two or more runs.")],
    grouped: Annotated[
        bool,
        typer.Option("--grouped", help="Resample duplicate posts together; reads the data."),
    ] = False,
    listed: Annotated[
        int, typer.Option("--list", min=0, help="Posts to show of each kind of difference.")
    ] = 0,
) -> None:
    """Say whether runs differ on the rows that all of them judged, and where."""
    from mmsa_cache.compose.compare import compare as compare_runs

    record = compare_runs(runs, grouped=grouped)
    if call.printed(record):
        return
    print_result(format_comparison(record, listed))
    say_notes(record["notes"])


_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_KINDS = {
    "only_first_right": "only {first} right",
    "only_second_right": "only {second} right",
    "both_wrong": "both wrong in different ways",
}


def format_comparison(record: dict[str, Any], listed: int = 0) -> str:
    """What `compare` returned, as tables and sentences.

    Args:
        record: Of two runs a table of figures; of more a table of runs and one of all pairs.
        listed: Rows of each kind that are shown of those on which two runs differ.
    """
    parts = [_format_two(record)] if len(record["runs"]) == 2 else _format_many(record)
    parts += [_format_listed(pair, listed) for pair in record["pairs"] if listed]
    return "\n\n".join([*parts, _format_method(record)])


def _format_two(record: dict[str, Any]) -> str:
    (pair,) = record["pairs"]
    first, second = pair["first"], pair["second"]
    changes = {title: pair[key] for key, title in _FIGURES.items()} | {
        f"recall of {name} ({of['rows']} rows)": of for name, of in pair["recall"].items()
    }
    table = format_table(
        ["", first, second, "difference", _interval_title(record)],
        [
            [
                title,
                f"{of['first']:.4f}",
                f"{of['second']:.4f}",
                f"{of['difference']:+.4f}",
                f"{of['low']:+.4f} … {of['high']:+.4f}" if "low" in of else "",
            ]
            for title, of in changes.items()
        ],
    )
    rows = {_kind(pair, kind): len(found) for kind, found in pair["differing"].items()}
    counts = ", ".join(f"{title} ({count})" for title, count in rows.items())
    p_value = pair["mcnemar"]["p_value"]
    return (
        f"{table}\n\nThey differ on {sum(rows.values())} of {record['rows']} rows: {counts}.\n"
        f"Exact McNemar test of equal accuracy: p = {p_value:.3g}."
    )


def _format_many(record: dict[str, Any]) -> list[str]:
    titles = [part for title in _FIGURES.values() for part in (title, _interval_title(record))]
    runs = [
        [run["run"]]
        + [
            part
            for key in _FIGURES
            for part in (
                f"{run[key]:.4f}",
                "{low:.4f} … {high:.4f}".format(**run["intervals"][key]),
            )
        ]
        for run in record["runs"]
    ]
    pairs = [
        [f"{pair['second']} − {pair['first']}"]
        + [
            part
            for key in _FIGURES
            for part in (
                f"{pair[key]['difference']:+.4f}",
                "{low:+.4f} … {high:+.4f}".format(**pair[key]),
            )
        ]
        + [f"{pair['mcnemar'][key]:.3g}" for key in ("p_value", "p_holm")]
        for pair in record["pairs"]
    ]
    return [
        format_table(["run", *titles], runs),
        format_table(["difference", *titles, "McNemar p", "p, Holm"], pairs),
    ]


def _format_listed(pair: dict[str, Any], listed: int) -> str:
    """The first rows of each kind on which two runs differ."""
    return format_table(
        ["who is right", "guid", "tag", pair["first"], pair["second"]],
        [
            [_kind(pair, kind), row["guid"], row["tag"], row["first"], row["second"]]
            for kind, rows in pair["differing"].items()
            for row in rows[:listed]
        ],
    )


def _format_method(record: dict[str, Any]) -> str:
    return (
        f"{record['rows']} rows judged by every run; intervals from {record['resamples']} "
        f"resamples of {record['drawn']}, the same for every run."
    )


def _interval_title(record: dict[str, Any]) -> str:
    return f"{record['level']:.0%} interval"


def _kind(pair: dict[str, Any], kind: str) -> str:
    return _KINDS[kind].format(first=pair["first"], second=pair["second"])
