"""HTML pages that open offline, without scripts or requests.

What comes from data reaches a page only through jinja2's autoescape. Templates extend
``shell.html.j2``, which holds the head and the common style.
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

_SHELL = Path(__file__).parent
_UNPRINTABLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"


def page_templates(*folders: Path) -> jinja2.Environment:
    """Templates of HTML pages: those in some folders, and the shell that they extend."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _SHELL], encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def printable(page: str) -> str:
    """Replaces what HTML or UTF-8 cannot hold, or what turns the text after it: control characters,
    lone surrogates, overrides of the direction."""
    return re.sub(_UNPRINTABLE, "\ufffd", page)
