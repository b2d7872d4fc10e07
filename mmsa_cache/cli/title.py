"""The arguments of this process, as other users of the machine see them and as runs keep them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mmsa_cache.errors import SettingsError

_HIDDEN = "***"
_PASSWORD = re.compile(r"//[^/@]*:.*@|[?&]password=")


def without_addresses(arguments: Sequence[str]) -> list[str]:
    """Arguments that may be kept: the address of a database may hold a password."""
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


def hide_passwords(arguments: Sequence[str]) -> list[str]:
    """Takes addresses with a password out of the list of processes; the arguments without them.

    Raises:
        SettingsError: That is not possible here.
    """
    kept = without_addresses(arguments)
    if any(_PASSWORD.search(argument) for argument in arguments):
        try:
            from setproctitle import setproctitle
        except ImportError:
            raise SettingsError(
                "An address has a password, which every user of this machine can read in the list "
                "of processes.",
                "Leave it out and set PGPASSWORD, or write it to ~/.pgpass. With pip install "
                "'mmsa[postgres]' it is blotted out there.",
            ) from None
        setproctitle(shlex.join(["mmsa", *kept]))
    return kept
