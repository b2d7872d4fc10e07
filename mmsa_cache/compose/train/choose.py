"""Chooses the settings to train: given ones, the best trial of a study, or an ensemble."""

from __future__ import annotations

from collections.abc import Mapping

from fuse.figures.study import StudySource
from fuse.search.choice import ChosenTrial, choose_trial
from fuse.search.database import read_studies
from fuse.search.study import StudyConfig
from fuse.search.study_file import known_studies
from fuse.setting import change, complete
from fuse.training.recipe import Recipe
from mmsa_cache.console import say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name

from ..search.studies import read_study_file, studies_database
from ..session.origin import origin_of_all
from ..session.session import Session
from .choice import ChosenRecipes
from .ensemble import choose_ensemble
from .request import TrainRequest


def choose_settings(request: TrainRequest, session: Session) -> ChosenRecipes:
    """Chooses the settings to train.

    Args:
        request: Names the studies, the changes of their settings, and what may be picked.
        session: Its features decide which studies can be chosen from.

    Raises:
        SettingsError: There is no such study or trial, or an assignment is wrong.
    """
    if not request.studies:
        return ChosenRecipes([Recipe.single(complete(request.changes).resolved(session.pools))])
    fixed = {
        name: study
        for name in request.studies
        if (study := _study_without_space(session, name)) is not None
    }
    chosen = {name: _choose_trial(name, session) for name in request.studies if name not in fixed}
    if any(":" in name for name in request.studies) or fixed or request.single:
        if request.ensemble is not None:
            raise SettingsError(
                "--ensemble picks among the trials of studies that were searched.",
                "Name such studies alone, without a trial and without --single.",
            )
    elif (ensemble := choose_ensemble([*chosen.values()], request, session)) is not None:
        return ensemble
    return _choose_one_each(request, fixed, chosen, session)


def _choose_one_each(
    request: TrainRequest,
    fixed: Mapping[str, StudyConfig],
    chosen: Mapping[str, ChosenTrial],
    session: Session,
) -> ChosenRecipes:
    """One setting a study, all of one weight."""
    settings, sources = [], []
    for name in request.studies:
        if name in fixed:
            settings.append(fixed[name].complete({**fixed[name].fixed, **request.changes}))
            sources.append(StudySource(name=name, trial=None, score=None))
        else:
            source = chosen[name].source
            say(f"Training trial {source.trial} of study {source.name} ({source.score:.4f}).")
            settings.append(change(chosen[name].setting, request.changes))
            sources.append(source)
    settings = [setting.resolved(session.pools) for setting in settings]
    first = request.studies[0]
    protocol = (
        Protocol(outer=fixed[first].protocol.outer)
        if first in fixed
        else chosen[first].study.protocol
    )
    searched = [trial.study for trial in chosen.values()]
    return ChosenRecipes([Recipe.even(settings)], protocol, sources, [], searched)


def _choose_trial(name: str, session: Session) -> ChosenTrial:
    chosen = choose_trial(name, origin_of_all(session), studies_database(session.settings))
    if name == "best":
        say(f"Compared: {', '.join(stored.name for stored in chosen.compared)}.")
        if chosen.excluded:
            say(f"Passed over, not comparable: {'; '.join(chosen.excluded)}.")
    return chosen


def _study_without_space(session: Session, name: str) -> StudyConfig | None:
    """The study of a name if it has no search space, else None."""
    if name == "best" or ":" in name or "@" in name:  # the last is of one outer part
        return None
    stored = [study.name for study in read_studies(studies_database(session.settings))]
    if name not in known_studies():
        if name in stored:
            return None
        raise unknown_name("There is no study", name, ["best", *known_studies(), *stored])
    study = read_study_file(session, name)
    return None if study.space else study
