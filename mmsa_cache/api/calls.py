"""What all functions of the Python API do, as the verbs of the command line do it."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import get_args

from mmsa_cache.compose.extraction.crew import EngineName, EngineRequest
from mmsa_cache.config.project import find_project
from mmsa_cache.errors import SettingsError
from mmsa_cache.escaping import without_passwords
from mmsa_cache.files.paths import expand_home
from mmsa_cache.names import check_choice
from mmsa_cache.system_errors import as_mmsa_error

from .wording import in_python_terms


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Errors name arguments in place of flags, and are safe to show on a terminal.

    What the system or a device refuses is one of them.
    """
    try:
        yield
    except Exception as error:
        known = as_mmsa_error(error)
        if known is None:
            raise
        known.message = without_passwords(in_python_terms(known.message))
        known.hint = without_passwords(in_python_terms(known.hint))
        known.problems = [*map(without_passwords, known.problems)]
        if known is error:
            raise
        raise known from error


@contextlib.contextmanager
def work_in_project() -> Iterator[Path]:
    """Works in the folder of the nearest ``mmsa.toml``, with `translate_errors`.

    Yields:
        The folder before, which paths that were given are relative to.
    """
    here = Path.cwd()
    with translate_errors(), contextlib.chdir(find_project(here)):
        yield here


def absolute_path(here: Path, path: str | os.PathLike[str]) -> Path:
    """A path that was given in a folder."""
    return Path(os.path.normpath(here / expand_home(path)))


def resolve_argument(here: Path, value: object) -> object:
    """A value that was given in a folder, made absolute if it is a path of something that is there;
    names stay names."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and "/" in value):
        path = absolute_path(here, value)
        # Path.exists raises for names that are too long.
        return path if os.path.exists(path) else value  # noqa: PTH110
    return value


def check_counts(**counts: int | None) -> None:
    """Refuses arguments that are no whole numbers from 1; None is as by default.

    Raises:
        SettingsError: Names them all.
    """
    _refuse(counts, lambda count: type(count) is int and count >= 1, "a whole number from 1")


def check_texts(**values: object) -> None:
    """Refuses arguments that are no texts, likewise."""
    _refuse(values, lambda value: isinstance(value, str), "a text")


def check_bools(**values: object) -> None:
    """Refuses arguments that are neither True nor False, likewise."""
    _refuse(values, lambda value: isinstance(value, bool), "True or False")


def _refuse(given: Mapping[str, object], fits: Callable[[object], bool], expected: str) -> None:
    wrong = [
        f"{name}={shorten(repr(value), 100)}"
        for name, value in given.items()
        if value is not None and not fits(value)
    ]
    if wrong:
        raise SettingsError(f"{', '.join(wrong)}: {expected} is expected.")


def engine_request(
    engine: EngineName | None, workers: int | None, address: str | None
) -> EngineRequest:
    """What runs workers, and how many.

    Raises:
        SettingsError: One of these is none.
    """
    check_counts(workers=workers)
    check_texts(address=address)
    check_choice("engine", engine, get_args(EngineName))
    return EngineRequest(engine, workers, address)


def format_call(function: Callable[..., object], given: Mapping[str, object]) -> str:
    """A call as a person writes it: ``mmsa.train(study='best', folds=3)``.

    Args:
        function: What was called.
        given: Its arguments by name; those that are as by default are left out.
    """
    known = inspect.signature(function).parameters
    shown = [
        f"{name}={value!r}"
        for name, value in given.items()
        if name not in known or value != known[name].default
    ]
    return f"mmsa.{function.__name__}({', '.join(shown)})"
