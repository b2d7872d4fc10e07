"""A search as a person watches it: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fuse.search.progress import RunningTrial, SearchProgress
from fuse.search.selection import ScoredTrial, scored
from mmsa_cache.console import SECONDS_BETWEEN_LINES, is_interactive, message_console, say
from mmsa_cache.escaping import single_line

_ROWS = 8
_REFRESHES_A_SECOND = 4


@contextmanager
def watch(title: str) -> Iterator[Callable[[SearchProgress], None]]:
    """Shows a search while it runs.

    Args:
        title: What is being done.

    Yields:
        A function to call with each new `fuse.search.progress.SearchProgress`.
    """
    if is_interactive():
        with Live(console=message_console, auto_refresh=False, transient=True) as live:
            shown = 0.0

            def show(progress: SearchProgress) -> None:
                nonlocal shown
                if time.monotonic() - shown > 1 / _REFRESHES_A_SECOND:
                    shown = time.monotonic()
                    live.update(table_of(title, progress), refresh=True)

            yield show
        return

    last_line, last_count = time.monotonic(), -1
    told: set[int] = set()

    def tell(progress: SearchProgress) -> None:
        nonlocal last_line, last_count
        for number, reason in progress.failures:
            if number not in told:
                told.add(number)
                say(f"Trial {number} failed: {reason}")
        finished = progress.finished
        ended = finished >= progress.wanted and finished != last_count
        if ended or time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line, last_count = time.monotonic(), finished
            say(f"{title}: {line_of(progress)}")

    yield tell


def line_of(progress: SearchProgress) -> str:
    """Finished trials, rate, time left and the best score, in one line."""
    here = progress.finished - progress.finished_before
    minutes = (time.monotonic() - progress.started) / 60
    rate = here / minutes if minutes else 0.0
    text = f"{progress.finished}/{progress.wanted} trials, {rate:.1f}/min"
    if rate and progress.finished < progress.wanted:
        text += f", {_duration(60 * (progress.wanted - progress.finished) / rate)} left"
    best = _best(progress)
    if best:
        text += f", best {best[0].score:.4f} (trial {best[0].number})"
    if progress.failures:
        text += f", {len(progress.failures)} failed"
    return text


def table_of(title: str, progress: SearchProgress) -> Group:
    """The best trials, those at work, and the line."""
    shown = Text(single_line(title))
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False, expand=True)
    for name in ("trial", "score", "± s.e."):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    table.add_column("setting", no_wrap=True, ratio=1)
    parameters = {trial.number: trial.frozen.params for trial in progress.trials}
    for trial in _best(progress)[:_ROWS]:
        table.add_row(
            str(trial.number),
            f"{trial.score:.4f}",
            f"{trial.standard_error:.4f}",
            Text(single_line(_described(parameters[trial.number]))),
        )
    for running in list(progress.running.values()):
        values = list(running.steps.values())
        table.add_row(
            str(running.number),
            f"{values[-1]:.4f}" if values else "–",
            "",
            f"training {_at_work(running)}/{progress.units}, epoch {running.epoch}",
            style="dim",
        )
    last = progress.failures[-1:]
    failed = [
        Text(single_line(f"Trial {number} failed: {reason}"), "red") for number, reason in last
    ]
    return Group(table, *failed, Text(line_of(progress)))


def _at_work(running: RunningTrial) -> str:
    """Numbers of the trainings that are at work."""
    first, last = len(running.units) + 1, len(running.units) + running.together
    return str(first) if first == last else f"{first}–{last}"


def _described(params: Mapping[str, object]) -> str:
    """A trial's parameters, shortly."""
    shown = [
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in params.items()
    ]
    return ", ".join(shown)


def _best(progress: SearchProgress) -> list[ScoredTrial]:
    return sorted(scored(progress.trials), key=lambda trial: (-trial.score, trial.number))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
