"""What the fault series counted, as one table at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmsa_cache.console import format_table

Tally = Callable[[str, int, str], None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Notes a line of the table: what was done, how often, what held."""

    def note(what: str, times: int, held: str) -> None:
        request.node.user_properties.append(("tally", [what, str(times), held]))

    return note


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
