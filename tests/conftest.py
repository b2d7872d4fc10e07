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
from tests.support.tally import Tally
from tests.support.tiny import make_text_model

os.environ.setdefault("MMSA_TEXT_LEXICON", "none")  # tests count the encoders that they set up
# What the libraries keep, a million objects, is looked through for garbage more seldom.
gc.set_threshold(20_000, 10, 10)
# The tree of commands is made once, as in a process of its own, and not for every call.
typer.testing._get_command = functools.cache(typer.testing._get_command)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Notes a line of the table: what was done, how often, what held."""

    def note(what: str, times: int, held: str) -> None:
        request.node.user_properties.append(("tally", [what, str(times), held]))

    return note


LONG = ("test_ray.py", "test_ray_search.py")
"""Files that would come late, and leave a core idle while another runs them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


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
