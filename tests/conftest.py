"""What the fault series counted, as one table at the end of a run."""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from mmsa_cache.console import format_table
from mmsa_cache.native import processes
from tests.support.forked import start_forked, start_fresh
from tests.support.tally import Tally
from tests.support.tiny import make_text_model

os.environ.setdefault("MMSA_TEXT_LEXICON", "none")  # tests count the encoders that they set up
# What the libraries keep, a million objects, is looked through for garbage more seldom.
gc.set_threshold(20_000, 10, 10)
# The tree of commands is made once, as in a process of its own, and not for every call.
typer.testing._get_command = functools.cache(typer.testing._get_command)
# Workers are forked from here, but those of programs and of `fresh_workers`:
processes.start_process = start_forked


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes start as those of a command do."""
    from extract.crew import local

    for module in (processes, local):
        monkeypatch.setattr(module, "start_process", start_fresh)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Notes a line of the table: what was done, how often, what held."""

    def note(what: str, times: int, held: str) -> None:
        request.node.user_properties.append(("tally", [what, str(times), held]))

    return note


EARLY = ("test_ray.py", "cli", "test_ray_search.py")
"""Files and folders that come first: those of Ray mostly wait, one after the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        names = {item.path.name, item.path.parent.name}
        return next((place for place, name in enumerate(EARLY) if name in names), len(EARLY))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported is looked through no more, and forks share it


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
        if key == "tally" and report.when == "call"
    ]
    if rows and config.getoption("markexpr").startswith("faults"):
        terminalreporter.section("faults")
        terminalreporter.write_line(format_table(["fault", "times", "what held"], rows))


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT's configuration and a word-level tokenizer; its weights are random."""
    return make_text_model(tmp_path_factory.mktemp("tiny-bert"))
