"""The rows of a split while its label file is read, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsa_cache.data.files import is_unicode
from mmsa_cache.errors import DataError

LABELS = ("positive", "neutral", "negative")
"""Class names; a class's code is its place here (the report's 0, 1, 2)."""
UNLABELLED = "null"
"""What a label file says of a row without a label."""
MEND = "Repair the files or remove their rows from the label file; nothing was changed."

NOT_PLAIN = "^$|^[.]|[/\\\\,\\x00\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
"""A guid that cannot be a file name and a cell of a ``guid,tag`` row; RE2 reads it alike."""

_LONGEST = 1000
"""Characters of a problem; it quotes what may be a line of a gigabyte."""


@dataclass(slots=True)
class LabelRow:
    """One post as its label file gives it."""

    guid: str
    label: int | None
    line: int
    """Line of the label file where the row begins; 0 where there is no label file."""
    text: str | None = None
    """The text itself, stripped (tables); None: it is in ``GUID.txt``."""
    image: str | None = None
    """Path of the picture (tables); None: it is ``GUID.jpg`` or the like."""
    flaw: str = ""
    """Reason why the text cannot be used (tables); empty where it can."""


@dataclass(slots=True)
class Listing:
    """The rows of one split while they are read, and what is wrong with them."""

    source: Path
    """The label file, or the folder of unlabelled pairs."""
    layout: str
    classes: tuple[str, ...] = LABELS
    folder: Path = Path()
    """Folder of the pairs; for tables the folder that image paths start from."""
    rows: list[LabelRow] = field(default_factory=list)
    merged: int = 0
    dropped: int = 0
    problems: list[str] = field(default_factory=list)
    first_line: dict[str, int] = field(default_factory=dict)
    refused: list[LabelRow] = field(default_factory=list)
    """Rows whose label is not valid but whose pair can be looked at."""

    def note(self, line: int, problem: str) -> None:
        """Adds a problem with its place."""
        where = f"{self.source.name}:{line}" if line else self.source.name
        shown = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]}…"
        self.problems.append(f"{where}: {shown}")

    def accepts(self, row: LabelRow, tags: Iterable[str], valid: tuple[str, ...]) -> bool:
        """Checks a row's labels and guid; notes all that is wrong with them."""
        guid, line = row.guid, row.line
        unknown = next((tag for tag in tags if tag not in valid), None)
        if unknown is not None:
            self.note(line, f"unknown label {unknown!r}; valid: {', '.join(valid)}")
        if not _is_plain(guid):
            self.note(line, f"guid {guid!r} is not a plain file name")
            return False
        if guid in self.first_line:
            self.note(line, f"guid {guid} is already in line {self.first_line[guid]}")
            return False
        self.first_line[guid] = line
        if unknown is not None:
            self.refused.append(row)
        return unknown is None

    def add(self, row: LabelRow, tag: str) -> None:
        """Adds a row with one label, if it is right."""
        if self.accepts(row, (tag,), (*self.classes, UNLABELLED)):
            row.label = None if tag == UNLABELLED else self.classes.index(tag)
            self.rows.append(row)


def raise_problems(problems: Sequence[str], where: Path, hint: str = MEND) -> None:
    """Raises all problems at once, if there are any.

    Raises:
        DataError: There are.
    """
    if problems:
        raise DataError(f"{len(problems)} problem(s) in {where}.", hint, problems)


def _is_plain(guid: str) -> bool:
    """Whether a guid can be a file name and a cell of a ``guid,tag`` row."""
    return not re.search(NOT_PLAIN, guid) and is_unicode(guid)
