"""An ensemble of the trials of searched studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fuse.figures.study import ENSEMBLE, PickedEnsemble, Value
from fuse.search.choice import ChosenTrial, study_source
from fuse.search.database import StoredStudy
from fuse.search.greedy import MEMBERS, EnsembleBudget
from fuse.search.picking import EnsemblePick, pick_ensemble
from fuse.setting import Setting, change
from fuse.training.classifier import input_dims
from fuse.training.ensemble import stored_bytes
from fuse.training.final import HeldOutProbabilities, ignores_held_out
from fuse.training.recipe import Recipe
from mmsa_cache.console import say
from mmsa_cache.data.splits import outer_split
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank

from ..search.studies import studies_database
from ..session.session import Session
from .choice import ChosenRecipes
from .request import TrainRequest

_METRIC_TITLES = {"neg_log_loss": "log-likelihood", "accuracy": "accuracy", "macro_f1": "macro-F1"}


def choose_ensemble(
    chosen: Sequence[ChosenTrial], request: TrainRequest, session: Session
) -> ChosenRecipes | None:
    """Picks an ensemble from the trials of all studies that were compared.

    Args:
        chosen: The best trial of each study.
        request: Changes of the settings, the size of the ensemble, and whether it was asked for.
        session: The command's.

    Returns:
        None where the ensemble was not asked for and does not beat the best single trial on rows
        that its weights were not picked on.

    Raises:
        SettingsError: It was asked for and cannot be picked, or the studies' rows differ.
    """
    searched = chosen[0].study.protocol
    _check_same_rows(chosen)
    studies = list({stored.name: stored for trial in chosen for stored in trial.compared}.values())
    bank, groups = _open_bank(studies, searched.split, session), session.groups(searched.split)
    labels = bank.labels.numpy()
    protocol = request.protocol(searched, session)

    copies = protocol.seeds * (1 if request.refit is not False else protocol.folds)

    def size_of(setting: Setting) -> int:
        dims = input_dims(bank, setting)
        return copies * stored_bytes(setting, dims, len(session.classes), len(labels))

    budget = EnsembleBudget(request.ensemble or MEMBERS, 1e6 * request.max_mb)
    ensemble = pick_ensemble(studies, labels, groups, budget, size_of)
    is_required = request.ensemble is not None
    if ensemble is None:
        if is_required:
            raise SettingsError(
                "The studies kept no held-out predictions: an earlier version searched them.",
                "Search again under another name.",
            )
        return None
    is_trained = is_required or ensemble.record.gain["neg_log_loss"].interval.low > 0
    say(_describe(ensemble.record, is_trained))
    if not is_trained:
        return None
    database = str(studies_database(session.settings))
    best = {stored.name: (stored, trial) for stored, trial in reversed(ensemble.members)}
    development = outer_split(searched.outer, labels, groups, searched.seed)[0]
    same_training = protocol == searched and not request.changes
    return ChosenRecipes(
        [_recipe(ensemble, request.changes, session)],
        searched,
        [study_source(stored, trial, ENSEMBLE, database) for stored, trial in best.values()],
        [ensemble.record],
        [trial.study for trial in chosen],
        _reusable_predictions(ensemble, development, len(labels)) if same_training else {},
    )


def _check_same_rows(chosen: Sequence[ChosenTrial]) -> None:
    """Refuses studies of different protocols: their held-out rows differ."""
    first = chosen[0].study
    for trial in chosen[1:]:
        if trial.study.protocol != first.protocol:
            raise SettingsError(
                f"The studies {first.name} and {trial.study.name} have other folds or outer rows: "
                "their held-out predictions are not of the same rows.",
                "Search both with one protocol and seed, or average one setting each: --single.",
            )


def _open_bank(studies: Sequence[StoredStudy], split: str, session: Session) -> FeatureBank:
    """The features that the complete trials of studies read."""
    trials = [trial for stored in studies for trial in stored.trials if trial.is_complete]
    return session.bank(split, list(dict.fromkeys(trial.setting().encoders for trial in trials)))


def _recipe(ensemble: EnsemblePick, changes: Mapping[str, Value], session: Session) -> Recipe:
    """The picked settings with changed values; members that become equal are merged."""
    weights: dict[Setting, float] = {}
    for setting, weight in ensemble.weights.items():
        changed = change(setting, changes).resolved(session.pools)
        weights[changed] = weights.get(changed, 0.0) + weight
    return Recipe(tuple(weights), tuple(weights.values()))


def _reusable_predictions(
    ensemble: EnsemblePick, development: np.ndarray, samples: int
) -> HeldOutProbabilities:
    """Held-out predictions of the searches that training the same folds would repeat."""
    return {
        (0, setting): held_out.for_samples(samples)
        for setting, held_out in ensemble.held_out.items()
        if ignores_held_out(setting) and np.array_equal(held_out.rows, development)
    }


def _describe(ensemble: PickedEnsemble, is_trained: bool) -> str:
    """One line: members, weights, and the gain on rows that the weights were not picked on."""
    members = ", ".join(f"{m.study}:{m.trial} × {m.weight:.2f}" for m in ensemble.members)
    gains = [
        f"{_METRIC_TITLES[metric]} {gain.gain:+.4f} "
        f"({gain.interval.low:+.4f} … {gain.interval.high:+.4f})"
        for metric, gain in sorted(ensemble.gain.items(), reverse=True)
    ]
    start = "Ensemble" if is_trained else "No ensemble, which would not be better for sure: that"
    return (
        f"{start} of {len(ensemble.members)} of {ensemble.trials} trials: {members}. Beside the "
        f"best single trial, on {ensemble.rows} rows that chose neither: {', '.join(gains)}."
    )
