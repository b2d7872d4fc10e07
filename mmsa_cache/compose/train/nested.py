"""A choice of its own in each outer part: figures that no choice has made optimistic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fuse.figures.study import BesideBaseline
from fuse.search.baseline_record import TITLES
from fuse.search.database import read_studies
from fuse.search.greedy import gains
from fuse.search.held_out import HeldOut
from fuse.training.final import Trained
from mmsa_cache.console import say
from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank

from ..search.search import SearchRequest, search
from ..search.studies import studies_database, study_of
from ..session.session import Session
from .choose import Choice, choose_settings
from .request import TrainRequest

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
            search(session, SearchRequest(name, request.trials, request.engine, outer=inside))
        studies = [study_of(session, name, inside).name for name in names]
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
        held_out={
            (place, setting): known
            for place, choice in enumerate(parts)
            for (_, setting), known in choice.held_out.items()
        },
        nested=[choice.searched[0].name for choice in parts],
    )


def beside_baselines(
    choice: Choice, trained: Trained, bank: FeatureBank, session: Session
) -> dict[str, dict[str, BesideBaseline]]:
    """The baselines that the searches of a nested choice fitted, on the rows of all outer parts.

    Returns:
        By name and metric; accuracy and macro-F1 of the model are of the rules named after them. A
        baseline that is not there in every part is left out.
    """
    if not choice.nested:
        return {}
    stored = {s.name: s.record for s in read_studies(studies_database(session.settings))}
    found: dict[str, list[HeldOut]] = {}
    for name in choice.nested:
        for baseline in stored[name].baselines:
            part = HeldOut.decode(baseline.outer, baseline.name)
            found.setdefault(TITLES[baseline.name], []).append(part)
    labels = bank.labels.cpu().numpy()[trained.outer]
    groups, rule = session.groups()[trained.outer], np.eye(len(session.classes))
    beside = {}
    for name, parts in found.items():
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        if not np.array_equal(rows[order], trained.outer):
            continue
        other = np.concatenate([part.probabilities for part in parts])[order].astype(np.float64)
        compared = gains(other, trained.probabilities, labels, groups)
        decided = rule[trained.predicted["macro_f1"]]
        compared["macro_f1"] = gains(other, decided, labels, groups)["macro_f1"]
        beside[name] = {
            metric: BesideBaseline(baseline=of.single, choice=of.ensemble, interval=of.interval)
            for metric, of in compared.items()
        }
    return beside
