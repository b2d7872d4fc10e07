"""Run directories: everything a trained model needs to be used and understood again."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import ModelError, SettingsError

RUNS = Path("runs")
_PACKAGES = ("torch", "transformers", "timm", "h5py", "numpy", "optuna", "scikit-learn")


def environment(device: str) -> dict[str, Any]:
    """What the run was made with."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "device": device,
        "packages": {name: version(name) for name in _PACKAGES},
    }


@contextmanager
def new_run(name: str | None) -> Iterator[tuple[str, Path]]:
    """Makes a run's folder under a temporary name; it gets its own once it is whole.

    Args:
        name: The run's name; default: the date and time.

    Yields:
        The name and the folder to write into. If anything is raised, the folder is removed.

    Raises:
        SettingsError: The name is taken or not a plain file name.
    """
    name = name or time.strftime("run-%Y%m%d-%H%M%S")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(
            f"{name!r} is not a plain name for a run.", "Use letters, digits, - _ ."
        )
    if (RUNS / name).exists():
        raise SettingsError(f"The run {RUNS / name} exists already.", "Give another --name.")
    folder = RUNS / f".{name}.{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield name, folder
        folder.rename(RUNS / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_command(path: Path) -> None:
    path.write_text(" ".join(["mmsa", *sys.argv[1:]]) + "\n", encoding="utf-8")


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
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error
    return config
