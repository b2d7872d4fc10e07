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
from ..session.path_policy import NO_OVERRIDES, RunOverrides
from .comparison_page import render_comparison
from .gallery import gallery_posts
from .report import session_of_run, write_page

COMPARISON = RUNS / "comparison.html"


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """Which page to write."""

    runs: Sequence[str]
    """Names or folders of two or more runs."""
    out: Path | None = None
    """File of the page; default: `COMPARISON`."""
    overrides: RunOverrides = NO_OVERRIDES
    """Overrides of the first run's settings, which locate the posts."""
    csv: Path | None = None
    """Folder for the page's tables."""
    force: bool = False
    """Whether existing CSV files are replaced."""


@dataclass(frozen=True, slots=True)
class WrittenComparison:
    """A page that was written."""

    runs: list[str]
    rows: int
    """Outer rows, which all runs share."""
    report: str
    """Path of the page."""
    bytes: int
    notes: list[str]
    csv: list[str]
    """Paths of the tables that were written."""


def report_comparison(request: ComparisonRequest) -> WrittenComparison:
    """Writes one page that compares runs.

    Raises:
        SettingsError: Fewer than two runs, or one of them twice.
        ModelError: A run is missing or damaged, or their outer rows differ.
    """
    runs = find_runs(request.runs)
    names = _names(request.runs, runs)
    _check_same_rows(names, runs)
    compared = compare_runs(names, runs)
    session = session_of_run(runs[0], request.overrides)
    page = render_comparison(
        dict(zip(names, runs, strict=True)),
        compared.comparison,
        gallery_posts(session.samples(runs[0].record.protocol.judging)),
        compared.notes,
    )
    target = request.out or COMPARISON
    tables = write_page(page, target, request.csv, force=request.force)
    rows, size = compared.comparison.rows, len(page.html.encode())
    return WrittenComparison(names, rows, str(target), size, compared.notes, tables)


def _names(requested: Sequence[str], runs: Sequence[RunFolder]) -> list[str]:
    """The names of runs; as they were requested where two folders have the same name."""
    count = Counter(run.name for run in runs)
    return [
        run.name if count[run.name] == 1 else name
        for name, run in zip(requested, runs, strict=True)
    ]


def _check_same_rows(names: Sequence[str], runs: Sequence[RunFolder]) -> None:
    """Checks that all runs have the outer rows of the first one.

    Raises:
        ModelError: It names the runs that do not.
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
