"""What all functions of the Python API share: errors, the project folder, checks of arguments."""

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
    """Rewrites errors for Python users: arguments in place of flags, safe to show on a terminal.

    Errors of the system or of a device become an `MmsaError`.
    """
    try:
        yield
    except Exception as error:
        translated = as_mmsa_error(error)
        if translated is None:
            raise
        translated.message = without_passwords(in_python_terms(translated.message))
        translated.hint = without_passwords(in_python_terms(translated.hint))
        translated.problems = [*map(without_passwords, translated.problems)]
        if translated is error:
            raise
        raise translated from error


@contextlib.contextmanager
def work_in_project() -> Iterator[Path]:
    """Works in the folder of the nearest ``mmsa.toml``, with `translate_errors`.

    Yields:
        The folder before; the caller's paths are relative to it.
    """
    here = Path.cwd()
    with translate_errors(), contextlib.chdir(find_project(here)):
        yield here


def absolute_path(here: Path, path: str | os.PathLike[str]) -> Path:
    """The absolute path of one that is relative to a folder; ``~`` is the user's home."""
    return Path(os.path.normpath(here / expand_home(path)))


def resolve_argument(here: Path, value: object) -> object:
    """An argument, as an absolute path if it names an existing file; other values are unchanged."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and "/" in value):
        path = absolute_path(here, value)
        # Path.exists raises for names that are too long.
        return path if os.path.exists(path) else value  # noqa: PTH110
    return value


def check_counts(**counts: int | None) -> None:
    """Refuses arguments other than whole numbers from 1 and None.

    Raises:
        SettingsError: With all of them.
    """
    _refuse(counts, lambda count: type(count) is int and count >= 1, "a whole number from 1")


def check_texts(**values: object) -> None:
    """Refuses arguments other than texts and None."""
    _refuse(values, lambda value: isinstance(value, str), "a text")


def check_bools(**values: object) -> None:
    """Refuses arguments other than True, False and None."""
    _refuse(values, lambda value: isinstance(value, bool), "True or False")


def _refuse(
    values: Mapping[str, object], is_valid: Callable[[object], bool], expected: str
) -> None:
    wrong = [
        f"{name}={shorten(repr(value), 100)}"
        for name, value in values.items()
        if value is not None and not is_valid(value)
    ]
    if wrong:
        raise SettingsError(f"{', '.join(wrong)}: {expected} is expected.")


def engine_request(
    engine: EngineName | None, workers: int | None, address: str | None
) -> EngineRequest:
    """Checks the arguments that choose what runs the workers.

    Raises:
        SettingsError: One of them has a wrong type or value.
    """
    check_counts(workers=workers)
    check_texts(address=address)
    check_choice("engine", engine, get_args(EngineName))
    return EngineRequest(engine, workers, address)


def format_call(function: Callable[..., object], arguments: Mapping[str, object]) -> str:
    """A call as a person writes it: ``mmsa.train(study='best', folds=3)``.

    Args:
        function: What was called.
        arguments: By name; those with their default value are left out.
    """
    parameters = inspect.signature(function).parameters
    shown = [
        f"{name}={value!r}"
        for name, value in arguments.items()
        if name not in parameters or value != parameters[name].default
    ]
    return f"mmsa.{function.__name__}({', '.join(shown)})"
