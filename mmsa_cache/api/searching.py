"""``mmsa.search``."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.compose.extraction.crew import EngineName
from mmsa_cache.compose.search.search import SearchRequest
from mmsa_cache.compose.search.search import search as run_study
from mmsa_cache.compose.session.session import Session

from .calls import check_counts, check_texts, engine_request, work_in_project
from .opening import session_or_default
from .study import Study
from .wording import in_python_terms


def search(
    session: Session | None = None,
    study: str = "default",
    trials: int = 200,
    *,
    workers: int | None = None,
    name: str | None = None,
    select: str = "best",
    outer: str | None = None,
    engine: EngineName | None = None,
    address: str | None = None,
    track: Sequence[str] = (),
) -> Study:
    """Searches a study's space on cached features: ``search(trials=50).best``.

    The same call continues an interrupted search.

    Args:
        session: Of `open`; default: that of the working folder.
        study: Name of a study file.
        trials: Finished trials in all; those of an earlier search of the study count.
        workers: Worker processes; default: the cores, or 1 a GPU, 4 under MPS.
        name: Of the study in the database; default: that of its file.
        select: ``best``, or ``one-se``: the simplest within one standard error of it.
        outer: Rows that judge the choice; default: the study file's.
        engine: What runs the workers: processes here (``local``), or a cluster (``ray``).
        address: Of a Ray cluster.
        track: ``tensorboard``, ``mlflow`` or ``wandb``, beside JSON lines.

    Raises:
        MmsaError: The study or an argument is wrong, or nearly all trials fail.
    """
    session = session_or_default(session)
    with work_in_project():
        check_counts(trials=trials)
        check_texts(study=study, name=name, select=select, outer=outer)
        crew = engine_request(engine, workers, address)
        request = SearchRequest(study, trials, crew, select, name=name, track=track, outer=outer)
        result = run_study(session, request)
        return Study(result.study, session, notes=[*map(in_python_terms, result.notes)])
