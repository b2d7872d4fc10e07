"""Run directories: everything a trained model needs to be used and understood again."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmsa_cache.disk import parse_json, read_plain, sync
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.hashing import digest
from mmsa_cache.version import __version__

RUNS = Path("runs")
CHECKPOINT = "checkpoint"
"""Folder of an unfinished run that a training goes on from."""
_MAX_CONFIG_BYTES = 16 << 20
_PACKAGES = ("torch", "transformers", "timm", "h5py", "numpy", "optuna", "scikit-learn")


def environment(device: str) -> dict[str, Any]:
    """What the run was made with."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "device": device,
        "packages": {"mmsa": __version__, **{name: version(name) for name in _PACKAGES}},
    }


@contextmanager
def new_run(name: str | None, identity: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Makes a run's folder under a temporary name; it gets its own once it is whole.

    The temporary name follows from what is run, so the same command finds what an interrupted one
    left there, whatever name it is to have.

    Args:
        name: The run's name; default: the date and time.
        identity: Everything that makes the run.

    Yields:
        The name and the folder to write into. What was kept in its `CHECKPOINT` folder stays when
        the run does not end, to go on from; without such a folder nothing stays.

    Raises:
        SettingsError: The name is taken or not a plain file name, or the same is being run.
    """
    name = name or time.strftime("run-%Y%m%d-%H%M%S")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(
            f"{name!r} is not a plain name for a run.", "Use letters, digits, - _ ."
        )
    if (RUNS / name).exists():
        raise SettingsError(f"The run {RUNS / name} exists already.", "Give another --name.")
    folder = RUNS / f".unfinished-{digest(identity)[:16]}"
    RUNS.mkdir(exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            try:
                folder.mkdir(exist_ok=True)
                yield name, folder
                _publish(folder, RUNS / name)
            except BaseException:
                if not (folder / CHECKPOINT).is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(RUNS / name / CHECKPOINT, ignore_errors=True)
    except Timeout as error:
        raise SettingsError("The same is being trained by another process.", "Wait.") from error
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _publish(folder: Path, target: Path) -> None:
    """Gives a folder its name when all that is in it is on the medium.

    Raises:
        SettingsError: Another run has got the name meanwhile.
    """
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise SettingsError(
            f"The run {target} exists by now.",
            "Run the same with another --name: what was trained is kept.",
        ) from error
    sync(RUNS)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_command(path: Path) -> None:
    path.write_text(shlex.join(["mmsa", *sys.argv[1:]]) + "\n", encoding="utf-8")


def find_run(name: str) -> Path:
    """The folder of a run, by name under ``runs/`` or by path.

    Raises:
        ModelError: There is none; lists those there are.
    """
    for folder in (RUNS / name, Path(name)):
        if (folder / "config.json").is_file():
            return folder
    known = sorted(p.name for p in RUNS.glob("[!.]*") if (p / "config.json").is_file())
    raise ModelError(
        f"There is no run {name!r}.", f"Known: {', '.join(known) or 'none; run mmsa train first'}."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a run.

    Raises:
        ModelError: It is not readable.
    """
    try:
        config = parse_json(read_plain(folder / "config.json", _MAX_CONFIG_BYTES))
        if not isinstance(config, dict):
            raise ValueError("an object is expected")
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error
    return config
