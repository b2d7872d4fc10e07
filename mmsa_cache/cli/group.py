"""The command line's own errors, which quote its arguments."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mmsa_cache.console import CLOSED, say

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""The base of what is raised for wrong arguments; it has no public name in every typer."""


class VisibleGroup(TyperGroup):
    """A group whose messages about wrong arguments are said as all others are."""

    def main(self, *about: Any, **more: Any) -> NoReturn:
        try:
            code = super().main(*about, **more | {"standalone_mode": False})
        except _USAGE_ERROR as error:
            message = io.StringIO()
            error.show(message)  # type: ignore[attr-defined]
            say(message.getvalue().rstrip().replace(": Value error, ", ": "))
            code = error.exit_code  # type: ignore[attr-defined]
        except typer.Abort:  # Ctrl-C before or after a verb
            code = 130
        except SystemExit as end:  # typer's own help has no other exit code than 1
            code = CLOSED if isinstance(end.__context__, BrokenPipeError) else end.code
        sys.exit(code or 0)

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """``help VERB`` is ``VERB --help``."""
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:], "--help"]
        return super().parse_args(context, arguments)

    def format_commands(self, context: Any, formatter: Any) -> None:
        """A line that is too long for a verb's sentence is broken; typer cuts the sentence."""
        rows = [
            (name, self.commands[name].get_short_help_str(sys.maxsize))
            for name in self.list_commands(context)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
