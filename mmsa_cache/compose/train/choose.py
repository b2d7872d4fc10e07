"""The settings to train: given, of a study, its best trial, or an ensemble of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fuse.figures.study import ENSEMBLE, PickedEnsemble, StudySource, Value
from fuse.search.choice import ChosenTrial, choose, source_of
from fuse.search.database import read_studies
from fuse.search.greedy import MEMBERS, EnsembleBudget
from fuse.search.picking import EnsemblePick, pick
from fuse.search.study import StudyConfig
from fuse.search.study_file import known_studies
from fuse.setting import Setting, change, complete
from fuse.training.classifier import input_dims
from fuse.training.ensemble import stored_bytes
from fuse.training.final import HeldOutProbabilities, ignores_held_out
from fuse.training.recipe import Recipe
from mmsa_cache.console import say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import outer_split, outer_splits
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name

from ..search.studies import studies_database, study_of_file
from ..session.origin import origin_of_all
from ..session.session import Session
from .request import TrainRequest


@dataclass(frozen=True, slots=True)
class Choice:
    """What to train."""

    recipes: list[Recipe]
    """One for all outer parts, or one a part."""
    protocol: Protocol = field(default_factory=Protocol)
    """Of the first study that was searched, else that of a run."""
    sources: list[StudySource] = field(default_factory=list)
    """A study each; empty where the settings were given."""
    ensembles: list[PickedEnsemble] = field(default_factory=list)
    """Those that the recipes are; empty where each is one setting a study."""
    searched: list[StudyConfig] = field(default_factory=list)
    """Studies whose trials were chosen from; none of a nested choice."""
    held_out: HeldOutProbabilities = field(default_factory=dict)
    """What the searches predicted of their held-out rows, where the training has the same ones."""
    nested: list[str] = field(default_factory=list)
    """Of a nested choice a study a part: its search fitted the baselines."""

    @property
    def settings(self) -> list[Setting]:
        """All settings, each once."""
        return list(dict.fromkeys(s for recipe in self.recipes for s in recipe.settings))

    def seen(self, protocol: Protocol, session: Session) -> list[str]:
        """Says how many of the rows that judge took part in a choice."""

        def rows(of: Protocol, side: int) -> NDArray[np.int64]:
            labels, groups = session.samples(of.split).labels, session.groups(of.split)
            parts = outer_splits(of.outer, labels, groups, of.seed)
            return np.unique(np.concatenate([part[side] for part in parts]))

        judged, notes = rows(protocol, 1), []
        for study in self.searched:
            known = study.protocol
            count = int(np.isin(judged, rows(known, 0)).sum())
            if count:
                notes.append(
                    f"{count} of {len(judged)} outer rows took part in the choice of study "
                    f"{study.name} (its outer rows: {known.outer}, seed {known.seed}), so the "
                    "figures of the outer rows are optimistic; --nested chooses in each part anew"
                )
        return notes


def choose_settings(request: TrainRequest, session: Session) -> Choice:
    """Finds the settings to train.

    Args:
        request: Names the studies, what is changed of their settings, and what may be picked.
        session: Says which features there are: only studies made on them are chosen from.

    Raises:
        SettingsError: There is no such study or trial, or an assignment is wrong.
    """
    changes = request.changes
    if not request.studies:
        return Choice([Recipe.single(complete(changes).resolved(session.pools))])
    known = {name: _fixed_study(session, name) for name in request.studies}
    fixed = {name: study for name, study in known.items() if study is not None}
    found = {name: _choose(name, session) for name in request.studies if name not in fixed}
    if any(":" in name for name in request.studies) or fixed or request.single:
        if request.ensemble is not None:
            raise SettingsError(
                "--ensemble picks among the trials of studies that were searched.",
                "Name such studies alone, without a trial and without --single.",
            )
    elif (picked := choose_ensemble([*found.values()], changes, request, session)) is not None:
        return picked
    return _of_each(request.studies, fixed, found, changes, session)


def _of_each(
    names: Sequence[str],
    fixed: Mapping[str, StudyConfig],
    found: Mapping[str, ChosenTrial],
    changes: Mapping[str, Value],
    session: Session,
) -> Choice:
    """One setting a study; several count alike."""
    settings, sources = [], []
    for name in names:
        if name in fixed:
            settings.append(fixed[name].complete({**fixed[name].fixed, **changes}))
            sources.append(StudySource(name=name, trial=None, score=None))
        else:
            source = found[name].source
            say(f"Training trial {source.trial} of study {source.name} ({source.score:.4f}).")
            settings.append(change(found[name].setting, changes))
            sources.append(source)
    settings = [setting.resolved(session.pools) for setting in settings]
    searched = [chosen.study for chosen in found.values()]
    first = names[0]
    protocol = Protocol(outer=fixed[first].protocol.outer) if first in fixed else None
    return Choice(
        [Recipe.even(settings)], protocol or found[first].study.protocol, sources, [], searched
    )


def choose_ensemble(
    chosen: Sequence[ChosenTrial],
    changes: Mapping[str, Value],
    request: TrainRequest,
    session: Session,
) -> Choice | None:
    """An ensemble of the trials of all studies that a choice was made from.

    Args:
        chosen: The choice of each study.
        changes: Values over those of the trials.
        request: Says what the ensemble may cost, and whether it must win.
        session: The command's.

    Returns:
        None where it does not win on rows that its weights were not picked on, and was not asked
        for.

    Raises:
        SettingsError: It was asked for and cannot be picked, or the studies' rows differ.
    """
    first = chosen[0].study
    for of in chosen[1:]:
        if of.study.protocol != first.protocol:
            raise SettingsError(
                f"The studies {first.name} and {of.study.name} have other folds or outer rows: "
                "their held-out predictions are not of the same rows.",
                "Search both with one protocol and seed, or average one setting each: --single.",
            )
    studies = {stored.name: stored for of in chosen for stored in of.compared}
    settings = [
        trial.setting() for of in studies.values() for trial in of.trials if trial.is_complete
    ]
    split = first.protocol.split
    bank = session.bank(split, list(dict.fromkeys(setting.encoders for setting in settings)))
    labels, groups = bank.labels.numpy(), session.groups(split)
    protocol = request.protocol(first.protocol, session)
    copies = protocol.seeds * (1 if request.refit is not False else protocol.folds)

    def size_of(setting: Setting) -> int:
        dims = input_dims(bank, setting)
        return copies * stored_bytes(setting, dims, len(session.classes), len(labels))

    budget = EnsembleBudget(request.ensemble or MEMBERS, 1e6 * request.max_mb)
    found = pick([*studies.values()], labels, groups, budget, size_of)
    if found is None:
        if request.ensemble is not None:
            raise SettingsError(
                "The studies kept no held-out predictions: an earlier version searched them.",
                "Search again under another name.",
            )
        return None
    wins = found.record.gain["neg_log_loss"].interval.low > 0
    say(describe(found.record, wins or request.ensemble is not None))
    if not wins and request.ensemble is None:
        return None
    place = str(studies_database(session.settings))
    best = {stored.name: (stored, trial) for stored, trial in reversed(found.members)}
    recipe = _recipe(found, changes, session)
    development = outer_split(first.protocol.outer, labels, groups, first.protocol.seed)[0]
    same = protocol == first.protocol and not changes
    return Choice(
        [recipe],
        first.protocol,
        [source_of(stored, trial, ENSEMBLE, place) for stored, trial in best.values()],
        [found.record],
        [of.study for of in chosen],
        {
            (0, setting): held_out.spread(len(labels))
            for setting, held_out in found.held_out.items()
            if same and ignores_held_out(setting) and np.array_equal(held_out.rows, development)
        },
    )


def _recipe(found: EnsemblePick, changes: Mapping[str, Value], session: Session) -> Recipe:
    """The picked settings, with other values: members that these make equal become one."""
    weights: dict[Setting, float] = {}
    for setting, weight in found.weights.items():
        changed = change(setting, changes).resolved(session.pools)
        weights[changed] = weights.get(changed, 0.0) + weight
    return Recipe(tuple(weights), tuple(weights.values()))


def describe(found: PickedEnsemble, trains: bool) -> str:
    """One line: members, weights, and the gain on rows that the weights were not picked on."""
    members = ", ".join(f"{m.study}:{m.trial} × {m.weight:.2f}" for m in found.members)
    titles = {"neg_log_loss": "log-likelihood", "accuracy": "accuracy", "macro_f1": "macro-F1"}
    gains = [
        f"{titles[metric]} {of.gain:+.4f} ({of.interval.low:+.4f} … {of.interval.high:+.4f})"
        for metric, of in sorted(found.gain.items(), reverse=True)
    ]
    start = "Ensemble" if trains else "No ensemble, which would not be better for sure: that"
    return (
        f"{start} of {len(found.members)} of {found.trials} trials: {members}. Beside the best "
        f"single trial, on {found.rows} rows that chose neither: {', '.join(gains)}."
    )


def _choose(name: str, session: Session) -> ChosenTrial:
    chosen = choose(name, origin_of_all(session), studies_database(session.settings))
    if name == "best":
        say(f"Compared: {', '.join(stored.name for stored in chosen.compared)}.")
        if chosen.passed_over:
            say(f"Passed over, not comparable: {'; '.join(chosen.passed_over)}.")
    return chosen


def _fixed_study(session: Session, name: str) -> StudyConfig | None:
    """A study without a space, or None."""
    if name == "best" or ":" in name or "@" in name:  # the last is of one outer part
        return None
    stored = [study.name for study in read_studies(studies_database(session.settings))]
    if name not in known_studies():
        if name in stored:
            return None
        raise unknown_name("There is no study", name, ["best", *known_studies(), *stored])
    study = study_of_file(session, name)
    return None if study.space else study
