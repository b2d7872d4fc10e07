"""``mmsa compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuse.evidence.compare import Judged, share
from fuse.evidence.compare import compare as compare_shared
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.splits import IntArray, duplicate_groups
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.runs.directory import find_run, read_config
from mmsa_cache.runs.predictions import read_predictions

from .samples import load_samples


def compare(runs: Sequence[str], *, grouped: bool = False) -> dict[str, Any]:
    """Compares runs on the rows that all of them judged.

    Args:
        runs: Names or folders of two or more runs.
        grouped: Duplicate posts are resampled together, as the first run's data shows them.

    Returns:
        See `fuse.evidence.compare.compare`; also the runs' ``notes``.

    Raises:
        SettingsError: Fewer than two runs, or one of them twice.
        ModelError: A run is missing or damaged, or the runs do not go together.
        DataError: ``grouped``, and the first run's data cannot be read or lacks rows.
    """
    folders = [find_run(run) for run in runs]
    _check_different(runs, folders)
    configs = [_read_config(folder) for folder in folders]
    shared = share(
        [
            Judged(
                run,
                config["classes"],
                read_predictions(folder / "predictions.csv", config["classes"]),
            )
            for run, folder, config in zip(runs, folders, configs, strict=True)
        ]
    )
    for run, rows in zip(runs, shared.left_out, strict=True):
        if rows:
            say(f"Note: {rows} row(s) of {run} are left out: not every run judged them.")
    groups = _groups(folders[0], configs[0], shared.guids) if grouped else None
    notes = [note for config in configs for note in config.get("notes", [])]
    return {**compare_shared(shared, groups=groups), "notes": list(dict.fromkeys(notes))}


def _check_different(runs: Sequence[str], folders: Sequence[Path]) -> None:
    if len(runs) < 2:
        raise SettingsError("One run cannot be compared.", "Name two or more.")
    same = [
        f"{run} is {earlier}"
        for place, run in enumerate(runs)
        for at, earlier in enumerate(runs[:place])
        if folders[at].resolve() == folders[place].resolve()
    ]
    if same:
        raise SettingsError("A run is named twice.", "Name different ones.", same)


def _read_config(folder: Path) -> dict[str, Any]:
    """A run's configuration with its class names checked."""
    config: Any = read_config(folder)
    names = config.get("classes")
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise ModelError(
            f"{folder / 'config.json'} has no list of different class names under 'classes'.",
            "Train the run again.",
        )
    return config


def _groups(folder: Path, config: dict[str, Any], guids: Sequence[str]) -> IntArray:
    """Numbers from 0 of the duplicate groups that rows belong to, (rows,)."""
    try:
        settings = Settings.model_validate(config["settings"])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} does not say where the data is: {error}.",
            "Compare without --grouped.",
        ) from error
    samples = load_samples(settings, "train")
    group = dict(zip([s.guid for s in samples], duplicate_groups(samples).tolist(), strict=True))
    missing = [guid for guid in guids if guid not in group]
    if missing:
        raise DataError(
            f"{settings.data.root}: {len(missing)} judged guid(s) are not in the data.",
            "Compare without --grouped.",
            missing[:10],
        )
    return np.unique([group[guid] for guid in guids], return_inverse=True)[1]
