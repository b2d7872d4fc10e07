"""``mmsa.train``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from textwrap import shorten

from fuse.figures.calibration import DECIDE, Decide
from fuse.figures.study import Value
from fuse.setting import FIELDS
from mmsa_cache.compose.extraction.crew import EngineName
from mmsa_cache.compose.session.session import Session
from mmsa_cache.compose.train.request import MEGABYTES, TrainRequest
from mmsa_cache.compose.train.train import train as train_run
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import check_choice, suggest_or_list

from .calls import (
    check_bools,
    check_counts,
    check_texts,
    engine_request,
    format_call,
    work_in_project,
)
from .opening import session_or_default
from .run import Run
from .study import Study


def train(
    session: Session | None = None,
    study: str | Study | Sequence[str | Study] | None = None,
    *,
    name: str | None = None,
    folds: int | None = None,
    seeds: int | None = None,
    outer: str | None = None,
    ensemble: int | None = None,
    single: bool = False,
    max_mb: int = MEGABYTES,
    average: bool = True,
    refit: bool | None = None,
    nested: bool = False,
    trials: int = 200,
    workers: int | None = None,
    engine: EngineName | None = None,
    address: str | None = None,
    decide: Decide = "accuracy",
    track: Sequence[str] = (),
    **setting: Value,
) -> Run:
    """Trains a setting, or an ensemble of a study's trials: ``train(fusion="gated", alpha=0.3)``.

    Args:
        session: Of `open`; default: that of this folder.
        study: ``"best"``, a study or its name (``"NAME:TRIAL"`` for a trial), or several;
            default: the default setting.
        name: Of the run; default: the date and time.
        folds: A member each, stopped on its own fold; default: the study's, or 5.
        seeds: Members a fold; default: the study's, or 1.
        outer: Rows that judge; default: the study's.
        ensemble: Averages so many of the study's trials at most; default: 8, if that is better on
            rows that picked nothing.
        single: One setting a study, no ensemble of its trials.
        max_mb: Megabytes of an ensemble.
        average: Whether the members are averaged; else the best one is the model.
        refit: Whether the model learns from all rows of the folds; default: if it is an ensemble of
            trials, or ``lbfgs`` solves it to its optimum.
        nested: Whether each part of a cross-validation searches and chooses anew.
        trials: Finished trials of each such search.
        workers: Worker processes of such a search.
        engine: What runs them: processes here (``local``), or a cluster (``ray``).
        address: Of a Ray cluster.
        decide: Decision rule: ``accuracy`` or ``macro_f1``.
        track: ``tensorboard``, ``mlflow`` or ``wandb``, beside JSON lines.
        setting: Fields of `fuse.Setting`, over what the study says.

    Raises:
        MmsaError: An argument is wrong, or the features are not there.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("session", "setting")}
    session = session_or_default(session)
    with work_in_project():
        check_counts(folds=folds, seeds=seeds, ensemble=ensemble, max_mb=max_mb, trials=trials)
        check_texts(name=name, outer=outer)
        check_bools(single=single, average=average, refit=refit, nested=nested)
        check_choice("decide", decide, DECIDE)
        _check_names(setting)
        names = _study_names(study)
        arguments["study"] = names[0] if len(names) == 1 else names or None
        request = TrainRequest(
            studies=names,
            changes=setting,
            name=name,
            outer=outer,
            folds=folds,
            seeds=seeds,
            averaged=average is not False,
            refit=refit,
            ensemble=ensemble,
            single=bool(single) or average is False,
            max_mb=max_mb,
            nested=bool(nested),
            trials=trials,
            engine=engine_request(engine, workers, address),
            decide=decide,
            track=track,
            command=format_call(train, arguments | setting),
        )
        return Run(train_run(session, request).directory)


def _study_names(study: object) -> list[str]:
    """The names of the studies in an argument.

    Raises:
        SettingsError: It holds something else.
    """
    values: list[object] = [] if study is None else [study]
    if isinstance(study, Sequence) and not isinstance(study, str | bytes):
        values = [*study]
    studies = [each for each in values if isinstance(each, str | Study)]
    if len(studies) < len(values):
        shown = shorten(repr(study), 100)
        raise SettingsError(f"study={shown}: a study, or its name, is expected.")
    return [each if isinstance(each, str) else each.name for each in studies]


def _check_names(setting: Mapping[str, Value]) -> None:
    """Refuses names that are neither arguments nor fields of a setting.

    Raises:
        SettingsError: With similar names.
    """
    known = {*FIELDS, *inspect.signature(train).parameters} - {"setting"}
    unknown = [f"{name}{suggest_or_list(name, known)}" for name in setting if name not in FIELDS]
    if unknown:
        raise SettingsError("train() takes no such arguments.", "Correct them all.", unknown)
