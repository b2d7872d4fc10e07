"""The settings to train: given, of a study, or its best trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuse.figures.study import StudySource
from fuse.search.choice import choose
from fuse.search.study import Study
from fuse.setting import Setting, change, complete, parse
from mmsa_cache.console import say

from .origin import origin_of_all
from .session import Session
from .studies import studies_database, study_of

DEFAULT_OUTER = "report"


@dataclass(frozen=True, slots=True)
class Choice:
    """What to train."""

    settings: list[Setting]
    outer: str
    """Outer split of the first study."""
    sources: list[StudySource]
    """A study each; empty where the settings were given."""


def choose_settings(studies: Sequence[str], assignments: Sequence[str], session: Session) -> Choice:
    """Finds the settings to train.

    Args:
        studies: Each a study (``NAME`` or ``NAME:TRIAL``) or ``best`` of all; none: the defaults. A
            study file without a space is one setting and needs no search.
        assignments: ``key=value``, over what the studies say.
        session: Says which features there are: only studies made on them are chosen from.

    Raises:
        SettingsError: There is no such study or trial, or an assignment is wrong.
    """
    changes = parse(list(assignments))
    if not studies:
        return Choice([complete(changes).resolved(session.has)], DEFAULT_OUTER, [])
    settings, outers, sources = [], [], []
    for name in studies:
        fixed = None if name == "best" or ":" in name else _fixed_study(session, name)
        if fixed is not None:
            setting, outer = fixed.complete({**fixed.fixed, **changes}), fixed.protocol.outer
            sources.append(StudySource(name=name, trial=None, score=None))
        else:
            chosen = choose(name, origin_of_all(session), studies_database(session.settings))
            source = chosen.source
            setting, outer = change(chosen.setting, changes), chosen.study.protocol.outer
            sources.append(source)
            say(f"Training trial {source.trial} of study {source.name} ({source.score:.4f}).")
        settings.append(setting.resolved(session.has))
        outers.append(outer)
    return Choice(settings, outers[0], sources)


def _fixed_study(session: Session, name: str) -> Study | None:
    """A study without a space, or None."""
    study = study_of(session, name)
    return None if study.space else study
