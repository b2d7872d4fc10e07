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
"""Exit code of a command whose standard output was closed: 128 + SIGPIPE."""


class _MessageConsole(Console):
    """Standard error. A closed pipe silences it and does not end the work."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _redirect_to_null(self.file)


message_console = _MessageConsole(
    stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True
)
message_console.soft_wrap = (
    not message_console.is_jupyter
)  # a cell of a notebook does not wrap lines

SECONDS_BETWEEN_LINES = 15.0
_MIN_SECONDS = 0.1
"""Shortest time from which a rate is computed."""
Advance = Callable[[int, str], None]
"""Takes the number of steps done since the last call, and a short note."""


def say(message: str, style: str | None = None) -> None:
    """Prints a message for people; markup and terminal commands in it have no effect."""
    message_console.print(without_passwords(message), style=style)


@contextmanager
def silence_if(quiet: bool) -> Iterator[None]:
    """Shows no messages and no progress inside the block if ``quiet`` is set."""
    before, message_console.quiet = message_console.quiet, message_console.quiet or quiet
    try:
        yield
    finally:
        message_console.quiet = before


def guard_terminal() -> None:
    """Escapes control characters in warnings, log records and tracebacks of all code.

    Changes the whole process. Characters that the terminal's code page lacks are written in ASCII;
    a standard stream that is closed becomes the null device.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _null_stream())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ASCII_FALLBACK)
    original = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: without_passwords(original(*args, **kwargs))
    logging.setLogRecordFactory(_VisibleRecord)
    sys.excepthook = _show_traceback
    threading.excepthook = lambda end: _show_traceback(
        end.exc_type, end.exc_value, end.exc_traceback
    )


class _VisibleRecord(logging.LogRecord):
    """A log record without control characters and passwords."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
    """Whether messages go to a terminal on which lines can be overwritten."""
    return message_console.is_terminal and not message_console.is_dumb_terminal


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Shows progress: a bar on a terminal, elsewhere a line now and then.

    Args:
        title: Name of the work.
        total: Number of steps.
        unit: Name of the steps, plural ("pairs").
        done: Steps of an earlier process, which do not count for the rate.

    Yields:
        The function to call after each step.
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
        if now - started >= _MIN_SECONDS:
            rate = (finished - done) / (now - started)
            left = (total - finished) / rate if rate else float("inf")
            pace = f", {rate:.1f}/s, {left:.0f} s left"
        say(f"{title}: {finished}/{total} {unit}{pace} {note}".rstrip())

    yield advance


def print_result(text: str) -> None:
    """Writes a result for people to standard output."""
    _print(escape_controls(text))


def print_data(text: str) -> None:
    """Writes a result for programs (JSON, CSV) to standard output, unchanged and in UTF-8.

    On a terminal it is written as `print_result` does.
    """
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        _print(escape_controls(text))
        return
    with _exit_if_closed():
        sys.stdout.flush()
        sys.stdout.buffer.write((text if text.endswith("\n") else text + "\n").encode())
        sys.stdout.buffer.flush()


def _print(text: str) -> None:
    with _exit_if_closed():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()


@contextmanager
def _exit_if_closed() -> Iterator[None]:
    """Ends the command silently if the reader of standard output has gone, as ``head`` does."""
    try:
        yield
    except BrokenPipeError:
        _redirect_to_null(sys.stdout)
        raise SystemExit(CLOSED) from None


def _redirect_to_null(stream: IO[str]) -> None:
    """Redirects a closed stream, whose buffer would fail again when Python ends."""
    with _null_stream() as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _null_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8")


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """An aligned table: first column to the left, the others to the right."""
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
