"""``mmsa report``: the page of a run, written again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from fuse.training.ensemble import Ensemble
from mmsa_cache.console import say
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.results import write_result
from mmsa_cache.runs.folder import RunFolder

from ..outside import AS_IN_THE_RUN, Given, Reach
from ..predictor import load_model, settings_of
from ..session import Session
from .attended import explainer
from .gallery import Post
from .page import render
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
    given: Given = AS_IN_THE_RUN


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A page that was written."""

    run: str
    report: str
    """Path of the page."""
    bytes: int
    against: str | None
    notes: list[str]


def report(request: ReportRequest) -> WrittenReport:
    """Writes a stored run's report again.

    Raises:
        ModelError: A run is missing or damaged, or the two do not go together.
        SettingsError: ``against`` is the run itself.
    """
    run = RunFolder.find(request.run)
    try:
        model = load_model(request.run, **asdict(request.given))
        ensemble, session = model.ensemble, model.session
    except ModelError as error:
        say(f"Note: {error.message}")
        reach = Reach.of_run(run.path, request.given)
        ensemble = None
        session = Session(settings_of(run, reach, request.given), reach=reach)
    split = run.record.protocol.judging
    try:
        session.samples(split)
    except (DataError, SettingsError) as error:
        say(f"Note: the posts are not at hand: {error.message}")
        session = Session(session.settings, samples={split: []}, reach=session.reach)
    rival = latest_rival(run) if request.against is None else _named(run, request.against)
    page = compose_page(run, run.name, session, ensemble, None, rival)
    target = request.out or run.path / PAGE
    write_result(target, page)
    return WrittenReport(
        run.name, str(target), len(page.encode()), rival.name if rival else None, run.record.notes
    )


def compose_page(
    run: RunFolder,
    name: str,
    session: Session,
    ensemble: Ensemble | None,
    bank: FeatureBank | None,
    rival: RunFolder | None,
) -> str:
    """The page of a run.

    Args:
        run: The run.
        name: Its name.
        session: Its data and encoders.
        ensemble: Its model, or None.
        bank: Features of the rows that its protocol divides, where they are open.
        rival: A run to compare with.
    """
    samples = session.samples(run.record.protocol.judging)
    posts = {post.guid: Post(post.text or "", post.image_path) for post in samples}
    return render(
        run,
        posts,
        name,
        against=against(run, name, rival),
        explain=explainer(session, run.record, ensemble, bank),
    )


def _named(run: RunFolder, name: str) -> RunFolder:
    rival = RunFolder.find(name)
    if rival.path.resolve() == run.path.resolve():
        raise SettingsError("A run cannot be compared with itself.", "Name another --against.")
    return rival
