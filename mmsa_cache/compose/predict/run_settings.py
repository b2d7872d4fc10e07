"""The settings of a run on this machine, and paths as a run keeps them."""

from __future__ import annotations

import os
from pathlib import Path

from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import ModelError
from mmsa_cache.files.paths import resolve_declared
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.validation import validate

from ..session.path_policy import DATA_HINT, STORE_HINT, PathPolicy, RunOverrides, encoder_paths


def settings_of_run(folder: RunFolder, policy: PathPolicy, overrides: RunOverrides) -> Settings:
    """The settings of a run, with the paths of its data, store and encoders on this machine.

    Args:
        folder: The run.
        policy: Which folders that it names may be used: others count as missing.
        overrides: Replace settings of the run.

    Raises:
        ModelError: A value is invalid.
    """
    values = folder.record.settings.model_dump()
    if overrides.device is not None:
        values["device"] = overrides.device
    if overrides.cache:
        values["cache"]["dir"] = policy.own.cache.dir
    else:
        values["cache"]["dir"] = _store_folder(folder, values["cache"]["dir"], policy)
    root = overrides.data
    if root is None and values["data"]["root"] is not None:
        root = _resolve_path(folder, values["data"]["root"])
        if not policy.allows_with_note(root, "the run's data folder", DATA_HINT):
            root = None
    values["data"]["root"] = root
    for section, key in encoder_paths(values):
        if os.path.exists(folder.path / section[key]):  # noqa: PTH110
            section[key] = str((folder.path / section[key]).resolve())
    message = f"The run in {folder.path} cannot be loaded with these options:"
    return validate(Settings, values, message, "", ModelError)


def _store_folder(folder: RunFolder, stored: Path, policy: PathPolicy) -> Path:
    """The store of a run, or that of the working folder if it is gone."""
    path = _resolve_path(folder, stored)
    if policy.allows_with_note(path, "the run's store", STORE_HINT) and path.is_dir():
        return resolve_declared(path)
    return policy.own.cache.dir


def _resolve_path(folder: RunFolder, stored: Path) -> Path:
    """A path in a run's settings; relative ones begin in its folder, so that both can be moved."""
    return Path(os.path.normpath(folder.path.resolve() / stored))


def portable_path(path: Path, run: Path) -> Path:
    """A path for the settings of a run: relative to its folder if both are in the working folder.

    Args:
        path: Of the store, the data or an encoder.
        run: The run's folder.
    """
    path, run, working = path.resolve(), run.resolve(), Path.cwd().resolve()
    inside = path.is_relative_to(working) and run.is_relative_to(working)
    return Path(os.path.relpath(path, run)) if inside else path
