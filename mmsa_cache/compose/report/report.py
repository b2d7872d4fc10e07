"""``mmsa report``: the page of a run, written again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from fuse.training.ensemble import Ensemble
from mmsa_cache.console import say
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.results import claim, write_result
from mmsa_cache.runs.folder import RunFolder

from ..predict.compare import find_judged
from ..predict.predictor import load_model, settings_of
from ..session.path_policy import NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .attended import explainer
from .gallery import GalleryPost
from .page import Page, render
from .rivals import against, latest_rival

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Which page to write."""

    run: str
    """Name or folder of a run."""
    against: str | None = None
    """Another run, to show what its loss does to the recall of each class; default: the latest run
    here that differs in the loss only."""
    out: Path | None = None
    """File for the page; default: ``report.html`` of the run."""
    overrides: RunOverrides = NO_OVERRIDES
    csv: Path | None = None
    """Folder for the page's tables."""
    force: bool = False
    """Whether CSV files that are there are replaced."""


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
    """Paths of the page's tables, where they are wanted."""


def report(request: ReportRequest) -> WrittenReport:
    """Writes a stored run's report again.

    Raises:
        ModelError: A run is missing or damaged, or the two do not go together.
        SettingsError: ``against`` is the run itself.
    """
    run = find_judged(request.run)
    try:
        model = load_model(run.path, **asdict(request.overrides))
        ensemble, session = model.ensemble, model.session
    except ModelError as error:
        say(f"Note: {error.message}")
        policy = PathPolicy.for_run(run.path, request.overrides)
        ensemble = None
        session = Session(settings_of(run, policy, request.overrides), path_policy=policy)
    session = with_posts(session, run.record.protocol.judging)
    rival = latest_rival(run) if request.against is None else _named(run, request.against)
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


def with_posts(session: Session, split: str) -> Session:
    """The session, or one without the posts of a split that are not at hand, which is said."""
    try:
        session.samples(split)
    except (DataError, SettingsError) as error:
        say(f"Note: the posts are not at hand: {error.message}")
        return Session(session.settings, samples={split: []}, path_policy=session.path_policy)
    return session


def posts_of(session: Session, split: str) -> dict[str, GalleryPost]:
    """What a gallery shows of the posts of a split, by guid."""
    return {
        post.guid: GalleryPost(post.text or "", post.image_path) for post in session.samples(split)
    }


def write_page(page: Page, target: Path, csv: Path | None, *, force: bool) -> list[str]:
    """Writes a page, and its tables into a folder where one is given; returns their paths.

    Raises:
        SettingsError: A table is there already, and ``force`` is not given; nothing is written.
    """
    files = {csv / f"{table.name}.csv": table.csv() for table in page.tables} if csv else {}
    claim(*files, force=force)
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
    """The page of a run.

    Args:
        run: The run.
        name: Its name.
        session: Its data and encoders.
        ensemble: Its model, or None.
        bank: Features of the rows that its protocol divides, where they are open.
        rival: A run to compare with.
    """
    return render(
        run,
        posts_of(session, run.record.protocol.judging),
        name,
        against=against(run, name, rival),
        explain=explainer(session, run.record, ensemble, bank),
    )


def _named(run: RunFolder, name: str) -> RunFolder:
    rival = find_judged(name)
    if rival.path.resolve() == run.path.resolve():
        raise SettingsError("A run cannot be compared with itself.", "Name another --against.")
    return rival
