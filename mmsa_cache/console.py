"""Console output: messages for people on standard error, results on standard output."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

from rich.cells import cell_len
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

from mmsa_cache.escaping import ASCII_FALLBACK, escape_controls, single_line, without_passwords

CLOSED = 141
"""Exit code of a command whose output nobody reads any more: 128 + SIGPIPE."""


class _Human(Console):
    """Messages that nobody reads any more do not end the work that they tell of."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _write_nowhere(self.file)


message_console = _Human(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
message_console.soft_wrap = (
    not message_console.is_jupyter
)  # a cell of a notebook does not wrap lines

SECONDS_BETWEEN_LINES = 15.0
_SHORTEST = 0.1
"""Seconds that tell a rate; steps may all be done when they are first shown."""

# Called with the number of steps done since the last call and a short note.
Advance = Callable[[int, str], None]


def say(message: str, style: str | None = None) -> None:
    """Prints a message for people. Data is never read as markup or as terminal commands."""
    message_console.print(without_passwords(message), style=style)


@contextmanager
def silence_if(asked: bool) -> Iterator[None]:
    """Shows no messages and no progress meanwhile, if that is asked for."""
    before, message_console.quiet = message_console.quiet, message_console.quiet or asked
    try:
        yield
    finally:
        message_console.quiet = before


def guard_terminal() -> None:
    """From here on, what libraries and Python itself print of data is made visible too.

    For a process of its own: warnings, log records and tracebacks are those of all code. What the
    terminal's code page lacks is written in ASCII; a stream that was closed is written nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _nowhere())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ASCII_FALLBACK)
    written = warnings.formatwarning
    warnings.formatwarning = lambda *about, **more: without_passwords(written(*about, **more))
    logging.setLogRecordFactory(_VisibleRecord)
    sys.excepthook = _show_traceback
    threading.excepthook = lambda end: _show_traceback(
        end.exc_type, end.exc_value, end.exc_traceback
    )


class _VisibleRecord(logging.LogRecord):
    """A log record whose text is made visible, whoever writes it."""

    def __init__(self, *about: Any, **more: Any) -> None:
        super().__init__(*about, **more)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = without_passwords(
                "".join(traceback.format_exception(*self.exc_info))
            ).rstrip()

    def getMessage(self) -> str:  # noqa: N802
        return without_passwords(super().getMessage())


def _show_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    sys.stderr.write(without_passwords("".join(traceback.format_exception(kind, error, trace))))


class _RateColumn(ProgressColumn):
    """Finished steps a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"– {self._unit}/s")


def is_interactive() -> bool:
    """Whether messages go to a terminal that lines can be written over on."""
    return message_console.is_terminal and not message_console.is_dumb_terminal


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
    if is_interactive():
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=message_console,
        ) as bar:
            task = bar.add_task(single_line(title), total=total, completed=done, note="")
            yield lambda steps, note: bar.update(task, advance=steps, note=single_line(note))
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
        pace = ""
        if now - started >= _SHORTEST:
            rate = (finished - done) / (now - started)
            left = (total - finished) / rate if rate else float("inf")
            pace = f", {rate:.1f}/s, {left:.0f} s left"
        say(f"{title}: {finished}/{total} {unit}{pace} {note}".rstrip())

    yield advance


def print_result(text: str) -> None:
    """Writes a result for people, as a table, to standard output."""
    _print(escape_controls(text))


def print_data(text: str) -> None:
    """Writes a result for programs (JSON, CSV) to standard output: as it is and in UTF-8, whatever
    the locale; on a terminal as `print_result` does."""
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        _print(escape_controls(text))
        return
    with _until_closed():
        sys.stdout.flush()
        sys.stdout.buffer.write((text if text.endswith("\n") else text + "\n").encode())
        sys.stdout.buffer.flush()


def _print(text: str) -> None:
    with _until_closed():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()


@contextmanager
def _until_closed() -> Iterator[None]:
    """Ends the command without a word where whoever read standard output is gone, as ``head``."""
    try:
        yield
    except BrokenPipeError:
        _write_nowhere(sys.stdout)
        raise SystemExit(CLOSED) from None


def _write_nowhere(stream: IO[str]) -> None:
    """What is left in a stream's buffer would fail again when Python ends."""
    with _nowhere() as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _nowhere() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8")


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """A plain aligned table: first column left, the others right."""
    cells = [[single_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        pairs = zip(row, widths, strict=True)
        first, *others = (
            (cell, " " * (width - cell_len(cell)))  # a Chinese letter takes two places
            for cell, width in pairs
        )
        line = ["".join(first), *(space + cell for cell, space in others)]
        lines.append("  ".join(line).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
