"""Untrusted text made safe for terminals, Markdown and spreadsheets."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, direction marks, zero-width characters, surrogates."""
_PASSWORD = re.compile(r"(://[^\s/@:]*:)[^\s/]+(?=@)|([?&]password=)[^\s&'\"]+")
"""The password of an address, after the user's name or as a parameter."""
_MARKUP = re.compile(r"[\\`|*\[\]<>&~]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Syntax of Markdown and HTML, and the parts of an address that make it a link."""
_FORMULA = re.compile("'*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
"""Beginning of a cell that a spreadsheet computes, also behind apostrophes."""


def escape_controls(text: str) -> str:
    """A text whose control and invisible characters are written out, as ``\\x1b``."""
    return _CONTROLS.sub(lambda match: _escape(match[0]), text)


def without_passwords(text: str) -> str:
    """`escape_controls`, with the passwords of addresses masked."""
    return _PASSWORD.sub(r"\1\2***", escape_controls(text))


def single_line(text: str) -> str:
    """`escape_controls`, without line breaks and tabs."""
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(letter: str) -> str:
    number = ord(letter)
    if number > 0xFFFF:
        return f"\\U{number:08x}"
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


_ASCII = ["-", "|", "|", "|", "-", "-", "'", ".", "x", "->", "+/-", "...", ">=", "<=", "~"]
_PLAIN = dict(zip("─│├└–−’·×→±…≥≤≈", _ASCII, strict=True))
"""Characters of mmsa's own output that some code pages lack."""
ASCII_FALLBACK = "mmsa.ascii"
"""Error handler of codecs: writes characters that a code page lacks as ``-`` or ``\\u03b1``."""


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or _escape(letter) for letter in characters), error.end


codecs.register_error(ASCII_FALLBACK, _to_ascii)


def escape_markdown(value: object) -> str:
    """A text on one line in which Markdown and HTML have no effect."""
    line = re.sub(r"\s+", " ", escape_controls(str(value)))
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def markdown_code(text: str) -> str:
    """A text on one line as a code span of Markdown."""
    line = " ".join(escape_controls(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if "`" not in line else f"{fence} {line} {fence}"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, with cells that look like formulas escaped by `escape_cell`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def escape_cell(text: str) -> str:
    """A cell of CSV, with an apostrophe before what a spreadsheet would compute."""
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def escaped_guids_note(guids: Iterable[str]) -> str:
    """A note on how many guids `escape_cell` changes; empty if none."""
    count = sum(escape_cell(guid) != guid for guid in guids)
    note = f"Note: {count} guid(s) begin as a formula does: CSV has an apostrophe before them."
    return note if count else ""


def unescape_cell(cell: str) -> str:
    """Undoes `escape_cell`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text, re.ASCII) is not None
