"""What all functions of the Python API do, as the verbs of the command line do it."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten

from mmsa_cache.config.project import project_of
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.names import no_such
from mmsa_cache.shown import spoken

from .terms import in_python


@contextlib.contextmanager
def in_terms() -> Iterator[None]:
    """Errors name arguments in place of flags, and are safe to show on a terminal."""
    try:
        yield
    except MmsaError as error:
        error.message = spoken(in_python(error.message))
        error.hint = spoken(in_python(error.hint))
        error.problems = [*map(spoken, error.problems)]
        raise


@contextlib.contextmanager
def in_project() -> Iterator[Path]:
    """Works `in_terms`, in the folder of the nearest ``mmsa.toml`` from the working folder up.

    Yields:
        The folder before, which paths that were given are relative to.
    """
    here = Path.cwd()
    with in_terms(), contextlib.chdir(project_of(here)):
        yield here


def absolute(here: Path, path: str | os.PathLike[str]) -> Path:
    """A path that was given in a folder."""
    found = Path(path)
    with contextlib.suppress(RuntimeError):  # ~NAME of a user there is not
        found = found.expanduser()
    return Path(os.path.normpath(here / found))


def placed(here: Path, value: object) -> object:
    """A value that was given in a folder, made absolute if it is a path of something that is there;
    names stay names."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and "/" in value):
        path = absolute(here, value)
        return path if path.exists() else value
    return value


def at_least_one(**counts: int | None) -> None:
    """Refuses arguments that are no whole numbers from 1; None is as by default.

    Raises:
        SettingsError: Names them all.
    """
    wrong = [
        f"{name}={count!r}"
        for name, count in counts.items()
        if count is not None and not (isinstance(count, int) and count >= 1)
    ]
    if wrong:
        raise SettingsError(f"{', '.join(wrong)}: a whole number from 1 is expected.")


def texts(**values: object) -> None:
    """Refuses arguments that are no texts; None is as by default.

    Raises:
        SettingsError: Names them all.
    """
    wrong = [
        f"{name}={shorten(repr(value), 100)}"
        for name, value in values.items()
        if not isinstance(value, str | None)
    ]
    if wrong:
        raise SettingsError(f"{', '.join(wrong)}: a text is expected.")


def one_of(name: str, value: str | None, valid: Iterable[str]) -> None:
    """Refuses an argument that is none of some names; None is as by default.

    Raises:
        SettingsError: It names those that are valid.
    """
    names = list(valid)
    if value is not None and not (isinstance(value, str) and value in names):
        raise no_such(f"{name} cannot be", str(value), names, known="Valid")


def as_typed(function: Callable[..., object], given: Mapping[str, object]) -> str:
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
