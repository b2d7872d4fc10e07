"""``mmsa report`` of several runs: the page that compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.errors import ModelError
from mmsa_cache.runs.directory import RUNS
from mmsa_cache.runs.folder import RunFolder

from ..predict.compare import compare_runs, find_runs
from ..predict.predictor import settings_of
from ..session.path_policy import NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .comparison_page import render_comparison
from .report import posts_of, with_posts, write_page

COMPARISON = RUNS / "comparison.html"


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """Which page to write."""

    runs: Sequence[str]
    """Names or folders of two or more runs."""
    out: Path | None = None
    """File for the page; default: `COMPARISON`."""
    overrides: RunOverrides = NO_OVERRIDES
    """What is said in the place of the first run's settings, which lead to the posts."""
    csv: Path | None = None
    """Folder for the page's tables."""
    force: bool = False
    """Whether CSV files that are there are replaced."""


@dataclass(frozen=True, slots=True)
class WrittenComparison:
    """A page that was written."""

    runs: list[str]
    rows: int
    """That all runs judged."""
    report: str
    """Path of the page."""
    bytes: int
    notes: list[str]
    csv: list[str]
    """Paths of the page's tables, where they are wanted."""


def report_comparison(request: ComparisonRequest) -> WrittenComparison:
    """Writes one page that compares runs.

    Raises:
        SettingsError: Fewer than two runs, or one of them twice.
        ModelError: A run is missing or damaged, or they were not judged on the same rows.
    """
    found = find_runs(request.runs)
    names = _names(request.runs, found)
    _check_same_rows(names, found)
    compared = compare_runs(names, found)
    first = found[0]
    policy = PathPolicy.for_run(first.path, request.overrides)
    split = first.record.protocol.judging
    session = with_posts(
        Session(settings_of(first, policy, request.overrides), path_policy=policy), split
    )
    page = render_comparison(
        dict(zip(names, found, strict=True)),
        compared.comparison,
        posts_of(session, split),
        compared.notes,
    )
    target = request.out or COMPARISON
    tables = write_page(page, target, request.csv, force=request.force)
    rows, size = compared.comparison.rows, len(page.html.encode())
    return WrittenComparison(names, rows, str(target), size, compared.notes, tables)


def _names(names: Sequence[str], runs: Sequence[RunFolder]) -> list[str]:
    """The names of runs, or how they were given where two folders have one name."""
    count = Counter(run.name for run in runs)
    return [
        run.name if count[run.name] == 1 else name for name, run in zip(names, runs, strict=True)
    ]


def _check_same_rows(names: Sequence[str], runs: Sequence[RunFolder]) -> None:
    """Refuses runs that were judged on other rows than the first one was.

    Raises:
        ModelError: Names them, and how many rows.
    """
    first = set(runs[0].predictions.guids)
    differing = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        judged = set(run.predictions.guids)
        if judged != first:
            differing.append(
                f"{name}: {len(judged)} rows, {len(judged & first)} of the {len(first)} of "
                f"{names[0]}"
            )
    if differing:
        raise ModelError(
            f"These runs were not judged on the rows of {names[0]}:",
            f"Compare the rows that all judged: mmsa compare {' '.join(names)}; or train them with "
            "one --outer and --seed.",
            differing,
        )
