"""What a person sees while a search runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mmsa_cache.compose.search import view as live
from tests.support.search_progress import make_progress


def test_one_line_has_rate_time_left_and_the_best() -> None:
    assert live.format_line(make_progress()) == (
        "4/10 trials, 2.0/min, 3 min 0 s left, best 0.6400 (trial 1), 1 failed"
    )


def test_the_table_fits_a_narrow_terminal() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(live.render_table("study s", make_progress()))
    text = console.export_text()
    lines = text.splitlines()
    assert lines[0].strip() == "study s"
    assert lines[1].split() == ["trial", "score", "±", "s.e.", "setting"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "0", "4"]
    assert lines[2].split()[1:3] == ["0.6400", "0.0058"]
    assert "training 2/3, epoch 3" in lines[5]
    assert "Trial 5 failed: The loss is nan in epoch 2." in text
    assert all(len(line) <= 60 for line in lines[:6])
    progress = make_progress()
    progress.running[4].parallel = 2  # as on a GPU
    console.print(live.render_table("study s", progress))
    assert "training 2–3/3, epoch 3" in console.export_text()


def test_off_a_terminal_failures_and_the_end_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "message_console", Console(force_terminal=False))
    told: list[str] = []
    monkeypatch.setattr(live, "say", told.append)
    with live.watch("study s") as show:
        progress = make_progress()
        show(progress)
        show(progress)
        progress.target = 4
        show(progress)
        show(progress)
    assert told == [
        "Trial 5 failed: The loss is nan in epoch 2.",
        f"study s: {live.format_line(progress)}",
    ]
