"""A choice of its own in each outer part: figures that no choice has made optimistic."""

from __future__ import annotations

from dataclasses import replace

from mmsa_cache.console import say
from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.errors import SettingsError

from .choose import Choice, choose_settings
from .request import TrainRequest
from .search import SearchRequest, search
from .session import Session
from .studies import study_of

OUTER = "stratified-5"


def choose_nested(request: TrainRequest, session: Session) -> Choice:
    """Searches the development rows of every outer part, and chooses in each.

    The studies of a part are kept as every study is, under names of their own: the same command
    goes on where it was.

    Raises:
        SettingsError: The outer rows are no cross-validation, or no study files are named.
    """
    outer = request.outer or OUTER
    names = request.studies or ("default",)
    if not is_cross_validation(outer):
        raise SettingsError(
            "--nested chooses in each part of a cross-validation.", f"Give --outer {OUTER}."
        )
    if any(name == "best" or ":" in name for name in names):
        raise SettingsError(
            "--nested searches anew in each part: it takes studies by the names of their files.",
            "Give --study NAME.",
        )
    parts = []
    for part in range(1, int(outer.partition("-")[2]) + 1):
        say(f"Outer part {part} of {outer}:")
        inside = f"{outer}/{part}"
        for name in names:
            search(session, SearchRequest(name, request.trials, request.workers, outer=inside))
        studies = [study_of(session, name).of_part(inside).name for name in names]
        parts.append(choose_settings(replace(request, studies=studies, outer=None), session))
    return Choice(
        [recipe for choice in parts for recipe in choice.recipes],
        parts[0].protocol.model_copy(update={"outer": outer}),
        [source for choice in parts for source in choice.sources],
        [
            picked.model_copy(update={"part": part})
            for part, choice in enumerate(parts, start=1)
            for picked in choice.ensembles
        ],
    )
