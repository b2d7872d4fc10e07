"""Makes a function a verb: shared options, error messages, JSON output."""

from __future__ import annotations

import contextlib
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic_core import to_jsonable_python

from mmsa_cache.config.project import find_project, work_in
from mmsa_cache.console import is_interactive, print_data, say, silence_if
from mmsa_cache.errors import MOST_SHOWN, MmsaError
from mmsa_cache.escaping import without_passwords
from mmsa_cache.native.signals import sigterm_as_interrupt
from mmsa_cache.system_errors import as_mmsa_error

from .options import SETTINGS, AsJson, Debug, Quiet
from .output import show_table

if TYPE_CHECKING:
    from mmsa_cache.compose.session.path_policy import RunOverrides
    from mmsa_cache.config.settings import Settings


_Verb = Callable[..., None]
_DASHES = 2 * "-"
"""Begin the name of a flag."""
_FINDINGS = 2
"""Findings of an error shown on a terminal, for five lines in all."""


class Call:
    """One call of a verb.

    Args:
        as_json: Whether ``--json`` was given.
    """

    flags: dict[str, object]
    """The values of its options in `SETTINGS`, None where not given."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._is_printed = False

    def overrides(self, *, online: bool = False) -> RunOverrides:
        """Its flags that replace settings of a run; see `RunOverrides` for ``online``."""
        from mmsa_cache.compose.session.path_policy import RunOverrides

        names = [
            field.name for field in fields(RunOverrides) if self.flags.get(field.name) is not None
        ]
        overrides: Any = {name: self.flags[name] for name in names}
        return RunOverrides(**overrides, online=online)

    def settings(self, **changes: object) -> Settings:
        """The settings that its flags, the environment and the config file lead to.

        Args:
            changes: Flags that the verb sets itself.
        """
        from mmsa_cache.config.loading import load_settings

        flags = self.flags | changes
        return load_settings(
            {SETTINGS[name][0]: value for name, value in flags.items()},
            named={SETTINGS[name][0]: _DASHES + name.replace("_", "-") for name in flags},
        )

    def print_json(self, record: object) -> bool:
        """Prints a result as JSON if ``--json`` was given; returns whether it was.

        Args:
            record: Dataclasses, pydantic models or plain values.
        """
        if self.as_json:
            self._is_printed = True
            print_data(json.dumps(to_jsonable_python(record), indent=1))
        return self.as_json

    def report_error(self, error: MmsaError) -> None:
        """Prints the verb's error; as JSON too with ``--json``, unless a result was printed."""
        most = _FINDINGS if is_interactive() else MOST_SHOWN
        say(f"error: {error.in_lines(most, '; --json has them all')}", style="red")
        if self.as_json and not self._is_printed:
            print_data(without_passwords(json.dumps(error.as_json(), indent=1)))

    def print_table(self, records: Sequence[object], columns: list[str]) -> None:
        """Prints records, as JSON or as a table of some of their columns."""
        if not self.print_json(records):
            show_table(to_jsonable_python(records), columns)

    def print_figures(self, record: Mapping[str, object]) -> None:
        """Prints a record, as JSON or as one line for each key."""
        if not self.print_json(record):
            rows = [{"figure": key, "value": value} for key, value in record.items()]
            show_table(rows, ["figure", "value"])


def verb(*shared: str, in_project: bool = True) -> Callable[[_Verb], _Verb]:
    """Makes a function that takes a `Call` first a verb: its errors become messages and exit codes.

    Args:
        shared: Names of `SETTINGS` to add as options; ``--json``, ``--quiet`` and ``--debug`` are
            always added.
        in_project: Whether it works in the project's folder, see `find_project`.
    """

    def decorate(function: _Verb) -> _Verb:
        hints = typing.get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        options: list[tuple[str, Any, Any]] = [(name, None, SETTINGS[name][1]) for name in shared]
        options += [("as_json", False, AsJson), ("quiet", False, Quiet), ("debug", False, Debug)]
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for name, default, kind in options
        ]

        def run(**values: Any) -> None:
            call = Call(values.pop("as_json"))
            debug, quiet = values.pop("debug"), values.pop("quiet")
            with _report_errors(call, debug), silence_if(quiet):
                _check_packages()
                here = Path.cwd()
                project = find_project(here) if in_project else here
                with work_in(project):
                    if project != here:
                        say(f"Project: {project}")
                        start = here.relative_to(project)
                        values = {
                            name: _in_project(start, name, value) for name, value in values.items()
                        }
                    call.flags = {name: values.pop(name) for name in shared}
                    function(call, **values)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        # Typer reads a function's parameters from these.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


_NAMES_OR_PATHS = ("run", "runs", "against", "text_model", "image_weights", "joint_model")
"""Parameters of texts that may be paths: those of what is there."""


def _in_project(start: Path, name: str, value: Any) -> Any:
    """A parameter's value with paths relative to the project's folder, not to the command's.

    Values that begin with ``-``, ``~`` or ``hf://`` are unchanged.

    Args:
        start: The command's folder, relative to the project's.
        name: Name of the parameter.
        value: Paths, texts, or a list of them; other values are unchanged.
    """
    if isinstance(value, list):
        return [_in_project(start, name, each) for each in value]
    if isinstance(value, Path) and not str(value).startswith(("~", "hf:")) and str(value) != "-":
        return start / value
    is_path = name in _NAMES_OR_PATHS and isinstance(value, str) and "/" in value
    return str(start / value) if is_path and (start / value).exists() else value


@contextlib.contextmanager
def _report_errors(call: Call, debug: bool) -> Iterator[None]:
    """Turns errors of mmsa and of the system into a message and an exit code."""
    try:
        with sigterm_as_interrupt():
            yield
    except (MmsaError, OSError, MemoryError, RuntimeError) as error:
        known = as_mmsa_error(error)
        if debug or known is None:
            raise
        call.report_error(known)
        raise typer.Exit(known.exit_code) from None
    except KeyboardInterrupt:
        say("Stopped. Finished work is kept; the same command resumes.")
        raise typer.Exit(130) from None


def _check_packages() -> None:
    """``extract`` and ``fuse`` are generic names: another package of that name may come first."""
    import importlib.util

    here = Path(__file__).resolve().parents[2]
    for name in ("extract", "fuse"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != here:
            found = spec.origin if spec else "nothing"
            raise MmsaError(
                f"The package {name!r} beside mmsa_cache is expected, Python finds {found}.",
                f"Rename or uninstall the other {name!r}, or leave the folder that holds it.",
            )
