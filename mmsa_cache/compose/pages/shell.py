"""HTML pages that open offline, without scripts or requests.

Data passes through jinja2's autoescape. Templates extend ``shell.html.j2``, which has the head and
the common style.
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

_SHELL = Path(__file__).parent
_UNPRINTABLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"


def page_templates(*folders: Path) -> jinja2.Environment:
    """A jinja2 environment of the templates in some folders, and of the shell that they extend."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _SHELL], encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def printable(page: str) -> str:
    """Replaces characters that HTML or UTF-8 cannot represent, and overrides of text direction."""
    return re.sub(_UNPRINTABLE, "\ufffd", page)
