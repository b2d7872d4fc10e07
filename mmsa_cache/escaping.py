"""Text of anybody, as it is shown: on a terminal, in Markdown, in a cell of a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, marks that turn the direction of the text or take no room, surrogates."""
_PASSWORD = re.compile(r"(://[^\s/@:]*:)[^\s/]+(?=@)|([?&]password=)[^\s&'\"]+")
"""The password of an address, after its user or behind a question mark."""
_MARKUP = re.compile(r"[\\`|*\[\]<>&~]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown and HTML take as their own, and what makes an address a link."""
_FORMULA = re.compile("'*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
"""How a cell begins that a spreadsheet computes, or that was marked as text before."""


def escape_controls(text: str) -> str:
    """A text with nothing in it that a terminal obeys or hides: that is written as ``\\x1b``."""
    return _UNSEEN.sub(lambda found: _written(found[0]), text)


def without_passwords(text: str) -> str:
    """`escape_controls`, without the password of an address that a library's message repeats."""
    return _PASSWORD.sub(r"\1\2***", escape_controls(text))


def single_line(text: str) -> str:
    """`escape_controls`, without line breaks and tabs."""
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def _written(letter: str) -> str:
    number = ord(letter)
    if number > 0xFFFF:
        return f"\\U{number:08x}"
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


_ASCII = ["-", "|", "|", "|", "-", "-", "'", ".", "x", "->", "+/-", "...", ">=", "<=", "~"]
_PLAIN = dict(zip("─│├└–−’·×→±…≥≤≈", _ASCII, strict=True))
"""Letters of mmsa's own output that not every code page has."""
ASCII_FALLBACK = "mmsa.plainly"
"""Error handler of codecs: what a code page lacks is written in ASCII, as ``-`` or ``\\u03b1``."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _written(letter) for letter in lacking), error.end


codecs.register_error(ASCII_FALLBACK, _plainly)


def escape_markdown(value: object) -> str:
    """A text on one line that Markdown and HTML show as it is."""
    line = re.sub(r"\s+", " ", escape_controls(str(value)))
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)


def markdown_code(text: str) -> str:
    """A text on one line as a code span of Markdown, which knows no escapes."""
    line = " ".join(escape_controls(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if "`" not in line else f"{fence} {line} {fence}"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV. A spreadsheet that opens it computes no cell: see `escape_cell`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def escape_cell(text: str) -> str:
    """A text as a cell of CSV: an apostrophe before what a spreadsheet would compute.

    `unescape_cell` takes it away again.
    """
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def escaped_guids_note(guids: Iterable[str]) -> str:
    """Says how many guids `escape_cell` changes; empty where it changes none."""
    marked = sum(escape_cell(guid) != guid for guid in guids)
    said = f"Note: {marked} guid(s) begin as a formula does: CSV has an apostrophe before them."
    return said if marked else ""


def unescape_cell(cell: str) -> str:
    """What `escape_cell` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text, re.ASCII) is not None
