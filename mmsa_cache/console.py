"""Console output: messages for people on standard error, results on standard output."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

human = Console(stderr=True, highlight=False, soft_wrap=True)

SECONDS_BETWEEN_LINES = 15.0

# Called with the number of steps done since the last call and a short note.
Advance = Callable[[int, str], None]


def say(message: str, style: str | None = None) -> None:
    """Prints one line for people. Data is never read as markup or as terminal commands."""
    human.print(visible(message), style=style, markup=False)


def visible(text: str) -> str:
    """A text whose control characters are written out, so that a terminal does not obey them."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda m: f"\\x{ord(m[0]):02x}", text)


class _RateColumn(ProgressColumn):
    """Finished steps a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"– {self._unit}/s")


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Shows long work: a bar on a terminal, a line now and then elsewhere.

    Args:
        title: What is being done.
        total: Steps in all.
        unit: What one step is, plural ("pairs").
        done: Steps that an earlier process finished; they do not count for the rate.

    Yields:
        A function to call with the number of steps just finished and a note.
    """
    if human.is_terminal:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=human,
        ) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")
            yield lambda steps, note: bar.update(task, advance=steps, note=note)
        return

    finished, started = done, time.monotonic()
    last_line = started

    def advance(steps: int, note: str) -> None:
        nonlocal finished, last_line
        finished += steps
        now = time.monotonic()
        if finished < total and now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        rate = (finished - done) / max(now - started, 1e-9)
        left = (total - finished) / rate if rate else float("inf")
        say(f"{title}: {finished}/{total} {unit}, {rate:.1f}/s, {left:.0f} s left {note}".rstrip())

    yield advance


def print_result(text: str) -> None:
    """Writes a result (a table, JSON) to standard output as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """A plain aligned table: first column left, the others right."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
