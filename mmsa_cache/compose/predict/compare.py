"""``mmsa compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuse.evidence.compare import RunPredictions, compare_rows, pair_rows
from fuse.evidence.comparison import Comparison
from fuse.figures.records import absent_notes
from mmsa_cache.console import say
from mmsa_cache.data.splits import IntArray
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.json_value import JsonObject
from mmsa_cache.runs.folder import RunFolder

from ..export_folder import is_export
from ..session.path_policy import NO_OVERRIDES, PathPolicy, RunOverrides
from ..session.session import Session
from .run_settings import settings_of_run


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """A comparison, and notes for its readers."""

    comparison: Comparison
    notes: list[str]

    def as_json(self) -> JsonObject:
        """The comparison, with the notes."""
        return {**self.comparison.as_json(), "notes": self.notes}


def compare(
    names: Sequence[str], *, grouped: bool = False, overrides: RunOverrides = NO_OVERRIDES
) -> ComparedRuns:
    """Compares runs on the rows that all of them judged.

    Args:
        names: Names or folders of two or more runs.
        grouped: Duplicate posts are resampled together; the first run's data tells duplicates.
        overrides: Replace settings of the first run.

    Raises:
        SettingsError: There are fewer than two runs, or one is named twice.
        ModelError: A run is missing or damaged, or the runs cannot be compared.
        DataError: ``grouped``, and the first run's data cannot be read or lacks rows.
    """
    return compare_runs(names, find_runs(names), grouped=grouped, overrides=overrides)


def find_runs(names: Sequence[str]) -> list[RunFolder]:
    """Finds runs that can be compared: two or more, judged on rows of one split.

    Raises:
        SettingsError: There are fewer than two runs, or one is named twice.
        ModelError: A run is missing or damaged, or they were judged on different splits.
    """
    runs = [find_run_with_predictions(name) for name in names]
    _check_different(names, runs)
    check_same_split(names, runs)
    return runs


def find_run_with_predictions(name: str) -> RunFolder:
    """Finds a run with the predictions of its outer rows, which an export lacks.

    Raises:
        ModelError: There is no run of this name, or it is an export.
    """
    run = RunFolder.find(name)
    if is_export(run.path):
        raise ModelError(
            f"{run.path} is an export: it has no predictions of rows that judge.",
            "Name the run that it was made from.",
        )
    return run


def compare_runs(
    names: Sequence[str],
    runs: Sequence[RunFolder],
    *,
    grouped: bool = False,
    overrides: RunOverrides = NO_OVERRIDES,
) -> ComparedRuns:
    """`compare`, for the runs of `find_runs`."""
    shared = pair_rows(
        [
            RunPredictions(name, run.record.classes, run.predictions)
            for name, run in zip(names, runs, strict=True)
        ]
    )
    for name, rows in zip(names, shared.left_out, strict=True):
        if rows:
            say(f"Note: {rows} row(s) of {name} are left out: not every run judged them.")
    groups = _groups(runs[0], shared.guids, overrides) if grouped else None
    compared = compare_rows(shared, groups=groups)
    notes = [note for run in runs for note in run.record.notes]
    notes += absent_notes(compared.runs[0].scores.absent)
    return ComparedRuns(compared, list(dict.fromkeys(notes)))


def _check_different(names: Sequence[str], runs: Sequence[RunFolder]) -> None:
    if len(names) < 2:
        raise SettingsError("One run cannot be compared.", "Name two or more.")
    paths = [run.path.resolve() for run in runs]
    repeated = [
        f"{name} is {earlier}"
        for index, name in enumerate(names)
        for earlier, path in zip(names[:index], paths, strict=False)
        if path == paths[index]
    ]
    if repeated:
        raise SettingsError("A run is named twice.", "Name different ones.", repeated)


def check_same_split(names: Sequence[str], runs: Sequence[RunFolder]) -> None:
    """Refuses runs that were judged on different splits, whose rows may have the same guids.

    Raises:
        ModelError: The splits differ.
    """
    splits = [run.record.protocol.judging for run in runs]
    if len(set(splits)) > 1:
        judged = [f"{name}: rows of {split}" for name, split in zip(names, splits, strict=True)]
        raise ModelError(
            "The runs were judged on rows of different splits.",
            "Train them with one --outer.",
            judged,
        )


def _groups(run: RunFolder, guids: Sequence[str], overrides: RunOverrides) -> IntArray:
    """Duplicate group of each row, numbered from 0, (rows,)."""
    policy = PathPolicy.for_run(run.path, overrides)
    session = Session(
        settings_of_run(run, policy, overrides), trained_on=run.record.encoders, path_policy=policy
    )
    split = run.record.protocol.judging
    group = dict(zip(session.samples(split).guids, session.groups(split).tolist(), strict=True))
    missing = [guid for guid in guids if guid not in group]
    if missing:
        raise DataError(
            f"{len(missing)} judged guid(s) of {run.name} are not in the data.",
            "Compare without --grouped.",
            missing[:10],
        )
    return np.unique([group[guid] for guid in guids], return_inverse=True)[1]
