"""A choice of settings in each outer part, so that no choice makes the scores optimistic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fuse.figures.study import BaselineComparison
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
from ..search.studies import load_study, studies_database
from ..session.session import Session
from .choice import ChosenRecipes
from .choose import choose_settings
from .request import TrainRequest

OUTER = "stratified-5"


def choose_nested(request: TrainRequest, session: Session) -> ChosenRecipes:
    """Searches the development rows of every outer part and chooses settings for each.

    Each part has studies of its own in the database, so that the same command resumes them.

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
    choices = []
    for part in range(1, int(outer.partition("-")[2]) + 1):
        say(f"Outer part {part} of {outer}:")
        rows = f"{outer}/{part}"
        for name in names:
            search(session, SearchRequest(name, request.trials, request.engine, outer=rows))
        studies = [load_study(session, name, rows).name for name in names]
        choices.append(choose_settings(replace(request, studies=studies, outer=None), session))
    return ChosenRecipes(
        [recipe for choice in choices for recipe in choice.recipes],
        choices[0].protocol.model_copy(update={"outer": outer}),
        [source for choice in choices for source in choice.sources],
        [
            ensemble.model_copy(update={"part": part})
            for part, choice in enumerate(choices, start=1)
            for ensemble in choice.ensembles
        ],
        held_out={
            (index, setting): probabilities
            for index, choice in enumerate(choices)
            for (_, setting), probabilities in choice.held_out.items()
        },
        nested=[choice.searched[0].name for choice in choices],
    )


def compare_with_baselines(
    choice: ChosenRecipes, trained: Trained, bank: FeatureBank, session: Session
) -> dict[str, dict[str, BaselineComparison]]:
    """Compares a nested choice with the baselines that its searches fitted, on all outer rows.

    Returns:
        By name and metric; macro-F1 of the model is that of the rule ``macro_f1``. A baseline that
        some part lacks is left out.
    """
    if not choice.nested:
        return {}
    stored = {s.name: s.record for s in read_studies(studies_database(session.settings))}
    held_out: dict[str, list[HeldOut]] = {}
    for name in choice.nested:
        for baseline in stored[name].baselines:
            part = HeldOut.decode(baseline.outer, baseline.name)
            held_out.setdefault(TITLES[baseline.name], []).append(part)
    labels, groups = bank.labels.cpu().numpy()[trained.outer], session.groups()[trained.outer]
    decided = np.eye(len(session.classes))[trained.predicted["macro_f1"]]
    comparisons = {}
    for name, parts in held_out.items():
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        if not np.array_equal(rows[order], trained.outer):
            continue
        probabilities = np.concatenate([part.probabilities for part in parts])[order].astype(
            np.float64
        )
        compared = gains(probabilities, trained.probabilities, labels, groups)
        compared["macro_f1"] = gains(probabilities, decided, labels, groups)["macro_f1"]
        comparisons[name] = {
            metric: BaselineComparison(baseline=of.single, choice=of.ensemble, interval=of.interval)
            for metric, of in compared.items()
        }
    return comparisons
