"""Shows a running search: as a table on a terminal, else as a line from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fuse.search.progress import RunningTrial, SearchProgress
from fuse.search.selection import ScoredTrial, scored_trials
from mmsa_cache.console import SECONDS_BETWEEN_LINES, is_interactive, message_console, say
from mmsa_cache.escaping import single_line

_ROWS = 8
_REFRESHES_A_SECOND = 4


@contextmanager
def watch(title: str) -> Iterator[Callable[[SearchProgress], None]]:
    """Shows a search while it runs.

    Args:
        title: Names the search.

    Yields:
        A function to call with each new `fuse.search.progress.SearchProgress`.
    """
    if not is_interactive():
        yield _Lines(title).show
        return
    with Live(console=message_console, auto_refresh=False, transient=True) as live:
        last_refresh = 0.0

        def show(progress: SearchProgress) -> None:
            nonlocal last_refresh
            if time.monotonic() - last_refresh > 1 / _REFRESHES_A_SECOND:
                last_refresh = time.monotonic()
                live.update(render_table(title, progress), refresh=True)

        yield show


class _Lines:
    """Prints each failure once, and a line from time to time and at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last_line, self._last_count = time.monotonic(), -1
        self._failed: set[int] = set()

    def show(self, progress: SearchProgress) -> None:
        for number, reason in progress.failures:
            if number not in self._failed:
                self._failed.add(number)
                say(f"Trial {number} failed: {reason}")
        finished = progress.finished
        ended = finished >= progress.target and finished != self._last_count
        if ended or time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line, self._last_count = time.monotonic(), finished
            say(f"{self._title}: {format_line(progress)}")


def format_line(progress: SearchProgress) -> str:
    """Finished trials, rate, time left and the best score, in one line."""
    minutes = (time.monotonic() - progress.started) / 60
    rate = (progress.finished - progress.finished_before) / minutes if minutes else 0.0
    text = f"{progress.finished}/{progress.target} trials, {rate:.1f}/min"
    if rate and progress.finished < progress.target:
        text += f", {_duration(60 * (progress.target - progress.finished) / rate)} left"
    best = _best(progress)
    if best:
        text += f", best {best[0].score:.4f} (trial {best[0].number})"
    if progress.failures:
        text += f", {len(progress.failures)} failed"
    return text


def render_table(title: str, progress: SearchProgress) -> Group:
    """The best trials, the running ones, the last failure and the line."""
    heading = Text(single_line(title))
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, expand=True)
    for name in ("trial", "score", "± s.e."):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    table.add_column("setting", no_wrap=True, ratio=1)
    parameters = {trial.number: trial.frozen.params for trial in progress.trials}
    for trial in _best(progress)[:_ROWS]:
        table.add_row(
            str(trial.number),
            f"{trial.score:.4f}",
            f"{trial.standard_error:.4f}",
            Text(single_line(_format_parameters(parameters[trial.number]))),
        )
    for running in list(progress.running.values()):
        values = list(running.steps.values())
        table.add_row(
            str(running.number),
            f"{values[-1]:.4f}" if values else "–",
            "",
            f"training {_training_numbers(running)}/{progress.trainings}, epoch {running.epoch}",
            style="dim",
        )
    last = progress.failures[-1:]
    failed = [
        Text(single_line(f"Trial {number} failed: {reason}"), "red") for number, reason in last
    ]
    return Group(table, *failed, Text(format_line(progress)))


def _training_numbers(running: RunningTrial) -> str:
    """Numbers of the trainings that run now, from 1."""
    first, last = len(running.scores) + 1, len(running.scores) + running.parallel
    return str(first) if first == last else f"{first}–{last}"


def _format_parameters(parameters: Mapping[str, object]) -> str:
    """The parameters of a trial in short form."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in parameters.items()
    )


def _best(progress: SearchProgress) -> list[ScoredTrial]:
    return sorted(scored_trials(progress.trials), key=lambda trial: (-trial.score, trial.number))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
