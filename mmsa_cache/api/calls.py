"""What all functions of the Python API do as the verbs of the command line do it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from mmsa_cache.config.project import project_of

T = TypeVar("T")


@contextlib.contextmanager
def in_project() -> Iterator[None]:
    """Works in the folder of the nearest ``mmsa.toml`` from the working folder up."""
    with contextlib.chdir(project_of(Path.cwd())):
        yield


def from_here(value: T) -> T | Path:
    """A path as it is typed, relative to the working folder, made absolute; names stay names."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and "/" in value):
        path = Path(value).expanduser()
        return path.absolute() if path.exists() else value
    return value
