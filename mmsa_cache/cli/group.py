"""The command line's own errors, which quote its arguments."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mmsa_cache.console import say

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
        sys.exit(code or 0)
