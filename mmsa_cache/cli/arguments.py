"""Keeps passwords out of the process list and out of runs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence

_HIDDEN = "***"
_PASSWORD = re.compile(r"//[^/@]*:.*@|[?&]password=")
_GIVEN = "_MMSA_ARGUMENTS"


def mask_addresses(arguments: Sequence[str]) -> list[str]:
    """Arguments with the addresses of databases masked, which may hold passwords."""
    kept: list[str] = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        flag, given = (f"{name}=", value) if sign and name.startswith("-") else ("", argument)
        if kept[-1:] == ["--storage"] or flag == "--storage=":
            hide = not given.startswith("sqlite:")
        else:
            hide = _PASSWORD.search(given) is not None
        kept.append(f"{flag}{_HIDDEN}" if hide else argument)
    return kept


def hide_passwords() -> None:
    """Removes passwords from the process list by starting the program again without them.

    The new process gets its arguments from a variable, which other users cannot read, and removes
    it from its environment.
    """
    own = sys.argv[1:]
    head, shown = sys.orig_argv[: -len(own)], sys.orig_argv[-len(own) :]
    if _GIVEN not in os.environ and shown == own and any(map(_PASSWORD.search, own)):
        os.environ[_GIVEN] = json.dumps(own)
        os.execv(sys.executable, [*head, *mask_addresses(own)])


def original_arguments() -> list[str]:
    """The original arguments of this process, also after `hide_passwords`."""
    given = os.environ.pop(_GIVEN, None)
    return sys.argv[1:] if given is None else list(json.loads(given))
