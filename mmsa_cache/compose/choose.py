"""The settings to train: given, of a study, or its best trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuse.figures.study import StudySource
from fuse.search.choice import choose
from fuse.search.study import Study
from fuse.search.study_file import find_study, read_study
from fuse.setting import Setting, change, complete, parse
from mmsa_cache.console import say
from mmsa_cache.store.identity import Origin

DEFAULT_OUTER = "report"


def choose_settings(
    studies: Sequence[str], assignments: Sequence[str], origin: Callable[[], Origin]
) -> tuple[list[Setting], str, list[StudySource]]:
    """The settings to train, their outer split, and the trials that they come from.

    Args:
        studies: Each a study (``NAME`` or ``NAME:TRIAL``) or ``best`` of all; none: the defaults. A
            study file without a space is one setting and needs no search. The first one says how
            the model is judged.
        assignments: ``key=value``, over what the studies say.
        origin: Says what features there are, see `locate.origins_here`.
    """
    changes = parse(list(assignments))
    if not studies:
        return [complete(changes)], DEFAULT_OUTER, []
    settings, outers = [], []
    sources: list[StudySource] = []
    for name in studies:
        fixed = None if name == "best" or ":" in name else _fixed_study(name)
        if fixed is not None:
            setting, outer = fixed.complete({**fixed.fixed, **changes}), fixed.protocol.outer
            sources.append(StudySource(name=name, trial=None, score=None))
        else:
            chosen = choose(name, origin())
            setting, outer = change(chosen.setting, changes), chosen.study.protocol.outer
            source = chosen.source
            sources.append(source)
            say(f"Training trial {source.trial} of study {source.name} ({source.score:.4f}).")
        settings.append(setting)
        outers.append(outer)
    return settings, outers[0], sources


def _fixed_study(name: str) -> Study | None:
    """A study without a space, or None."""
    study = read_study(find_study(name))
    return None if study.space else study
