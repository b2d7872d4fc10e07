"""``mmsa report``: writes the page of a run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fuse.training.ensemble import Ensemble
from mmsa_cache.console import say
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.results import check_outputs, write_result
from mmsa_cache.runs.folder import RunFolder

from ..predict.compare import find_run_with_predictions
from ..predict.predictor import load_predictor
from ..predict.run_settings import settings_of_run
from ..session.path_policy import NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .gallery import gallery_posts
from .model_attention import attention_explainer
from .page import Page, render
from .rivals import latest_rival, loss_section

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Which page to write."""

    run: str
    """Name or folder of a run."""
    against: str | None = None
    """Run whose recalls are compared with this one's; default: the latest that differs in the loss
    only."""
    out: Path | None = None
    """File of the page; default: ``report.html`` of the run."""
    overrides: RunOverrides = NO_OVERRIDES
    csv: Path | None = None
    """Folder for the page's tables."""
    force: bool = False
    """Whether existing CSV files are replaced."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A page that was written."""

    run: str
    report: str
    """Path of the page."""
    bytes: int
    against: str | None
    notes: list[str]
    csv: list[str]
    """Paths of the tables that were written."""


def report(request: ReportRequest) -> WrittenReport:
    """Writes the report of a stored run again.

    Raises:
        ModelError: A run is missing or damaged, or the two were split differently.
        SettingsError: ``against`` is the run itself.
    """
    run = find_run_with_predictions(request.run)
    try:
        model = load_predictor(run.path, request.overrides)
        ensemble, session = model.ensemble, model.session
    except ModelError as error:
        say(f"Note: {error.message}")
        ensemble, session = None, session_of_run(run, request.overrides)
    session = _allow_missing_posts(session, run.record.protocol.judging)
    rival = latest_rival(run) if request.against is None else _find_rival(run, request.against)
    page = compose_page(run, run.name, session, ensemble, None, rival)
    target = request.out or run.path / PAGE
    tables = write_page(page, target, request.csv, force=request.force)
    return WrittenReport(
        run.name,
        str(target),
        len(page.html.encode()),
        rival.name if rival else None,
        run.record.notes,
        tables,
    )


def session_of_run(run: RunFolder, overrides: RunOverrides) -> Session:
    """The data and encoders of a run; without posts, with a note, if they are missing."""
    policy = PathPolicy.for_run(run.path, overrides)
    session = Session(settings_of_run(run, policy, overrides), path_policy=policy)
    return _allow_missing_posts(session, run.record.protocol.judging)


def _allow_missing_posts(session: Session, split: str) -> Session:
    """The session, or one without posts, with a note, if those of the split are missing."""
    try:
        session.samples(split)
    except (DataError, SettingsError) as error:
        say(f"Note: the posts are not at hand: {error.message}")
        return Session(session.settings, samples={split: []}, path_policy=session.path_policy)
    return session


def write_page(page: Page, target: Path, csv: Path | None, *, force: bool) -> list[str]:
    """Writes a page, and its tables to a folder if one is given; returns the tables' paths.

    Raises:
        SettingsError: A table exists and ``force`` is False; nothing is written.
    """
    files = {csv / f"{table.name}.csv": table.csv() for table in page.tables} if csv else {}
    check_outputs(*files, force=force)
    write_result(target, page.html)
    for path, content in files.items():
        write_result(path, content)
    return [str(path) for path in files]


def compose_page(
    run: RunFolder,
    name: str,
    session: Session,
    ensemble: Ensemble | None,
    bank: FeatureBank | None,
    rival: RunFolder | None,
) -> Page:
    """Renders the page of a run.

    Args:
        run: The run.
        name: Its name.
        session: Its data and encoders.
        ensemble: Its model, or None.
        bank: Features of the rows that its protocol divides; None: opened when needed.
        rival: Run to compare with.
    """
    return render(
        run,
        gallery_posts(session.samples(run.record.protocol.judging)),
        name,
        against=loss_section(run, name, rival),
        explain=attention_explainer(session, run.record, ensemble, bank),
    )


def _find_rival(run: RunFolder, name: str) -> RunFolder:
    rival = find_run_with_predictions(name)
    if rival.path.resolve() == run.path.resolve():
        raise SettingsError("A run cannot be compared with itself.", "Name another --against.")
    return rival
