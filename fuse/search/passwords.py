"""PostgreSQL passwords from the environment or a file, as PostgreSQL's own programs find them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import sqlalchemy
from pydantic import SecretStr

from mmsa_cache.console import say
from mmsa_cache.files.untrusted import read_regular

_MAX_BYTES = 1 << 20
_FIELDS = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)")
"""A field of a line; a backslash escapes a colon or a backslash."""


def find_password(url: sqlalchemy.URL) -> SecretStr | None:
    """Finds the password in ``PGPASSWORD``, else in ``PGPASSFILE`` or ``~/.pgpass``.

    The rules are those of libpq (PostgreSQL's documentation, 'The Password File'): lines are
    ``HOST:PORT:DATABASE:USER:PASSWORD``, ``*`` matches any value, the first matching line counts,
    and a file that others may read is not used.
    """
    if "PGPASSWORD" in os.environ:
        return SecretStr(os.environ["PGPASSWORD"])
    file = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
    try:
        text = read_regular(file, _MAX_BYTES).decode()
        is_open = file.stat().st_mode & 0o077
    except (OSError, ValueError):
        return None
    if is_open:
        say(f"{file} is not used: others may read it. chmod 600 {file}")
        return None
    values = [url.host or "localhost", str(url.port or 5432), url.database or "", url.username]
    for line in text.splitlines():
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _FIELDS.findall(line)[:5]]
        matches = all(field in ("*", value) for field, value in zip(fields, values, strict=False))
        if len(fields) == 5 and matches and not line.startswith("#"):
            return SecretStr(fields[4])
    return None
