"""Streams the rows of a split and collects the problems of its label file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsa_cache.data.files import is_unicode
from mmsa_cache.errors import DataError
from mmsa_cache.names import suggest

from .classes import LABELS as LABELS
from .classes import UNKNOWN as UNKNOWN
from .classes import UNLABELLED as UNLABELLED
from .classes import ClassNames, is_unlabelled
from .findings import Findings

REPAIR_HINT = "Repair the files or remove their rows from the label file; nothing was changed."
DROPPED = -1
"""Label of a row with contradicting labels, which is counted and left out."""

_MOST_UNKNOWN = 5
"""Unknown labels that are reported one by one."""
NOT_PLAIN = "^$|^[.]|[/\\\\\\x00\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
"""Matches guids that are no file names of one line; RE2 reads the pattern alike."""


@dataclass(slots=True)
class LabelRow:
    """One row of a label file."""

    guid: str
    label: int | None
    """Code of its class; None if unlabelled, `UNKNOWN` if the label is a noted problem."""
    line: int
    """Line or row where it begins; 0 without a label file."""
    text: str | None = None
    """The text, stripped (tables); None: it is in ``STEM.txt``."""
    image: str | None = None
    """Path of the picture; None: it is ``STEM.jpg`` or the like; empty: the row has none."""
    flaw: str = ""
    """Reason why the text cannot be used (tables); empty if it can."""
    file_stem: str = ""
    """`stem`, if it is not the guid."""
    table: str = ""
    """Name of its table; empty if there is none."""

    @property
    def stem(self) -> str:
        """Path of the row's text and picture without their suffixes."""
        return self.file_stem or self.guid


RowSource = Callable[["Listing"], Iterator[LabelRow]]
"""Yields the rows of a listing as they are in the data, and notes their problems there."""


def _no_rows(listing: Listing) -> Iterator[LabelRow]:
    return iter(())


@dataclass(slots=True)
class Listing:
    """The rows of one split, read anew by each call of `rows`.

    Counts, problems and notes are complete once a stream has ended.
    """

    path: Path
    """The label file, the first of several, or the folder of unlabelled pairs."""
    layout: str
    split: str = ""
    names: ClassNames = field(default_factory=lambda: ClassNames(LABELS))
    folder: Path = Path()
    """Where the paths of texts and pictures start."""
    labelled: bool = True
    """Whether labels are read."""
    read: RowSource = _no_rows
    merged: int = 0
    """Rows whose label was merged from a neutral and a polar one."""
    dropped: int = 0
    """Rows dropped for contradicting labels."""
    agreeing: int | None = None
    """Rows of raw MVSA whose text and picture have the same label."""
    fixed_notes: tuple[str, ...] = ()
    """Notes that do not depend on the rows."""
    findings: Findings = field(default_factory=Findings)
    first_line: dict[str, int] = field(default_factory=dict)
    """The line of each guid."""
    unknown: set[str] = field(default_factory=set)
    """The first unknown labels, each a problem of its own; all others are one problem."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's code is its index."""
        return self.names.classes

    @property
    def problems(self) -> list[str]:
        """Problems of the label file, one line per cause."""
        return self.findings.problems()

    @property
    def notes(self) -> list[str]:
        """Remarks for users, one line each."""
        return [*self.fixed_notes, *self.findings.notes()]

    def rows(self) -> Iterator[LabelRow]:
        """Reads the rows in the order of the label file, those with `UNKNOWN` labels included."""
        self.merged, self.dropped, self.agreeing = 0, 0, None
        count, codes = 0, set()
        self.findings.clear(self.path.name)
        self.first_line, self.unknown = {}, set()
        for row in self.read(self):
            if not self._is_valid_guid(row):
                continue
            if row.label == DROPPED:
                self.dropped += 1
                continue
            count += 1
            codes.add(row.label)
            yield row
        absent = [name for code, name in enumerate(self.classes) if code not in codes]
        if absent and self.labelled and self.split == "train" and not self.problems:
            self.remark(f"classes without a row in {self.split}: {', '.join(absent)}")
        if not count and not self.problems:
            self.note(0, "no rows after the header" if not self.dropped else "no row is left")

    def note(self, line: int, cause: str, detail: str = "") -> None:
        """Notes a problem of a row, see `mmsa_cache.data.tables.Note`."""
        self.findings.add_problem(line, cause, detail)

    def remark(self, remark: str, example: str = "") -> None:
        """Notes a remark, which is no problem; remarks with examples are counted."""
        self.findings.add_remark(remark, example)

    def code_of(self, tag: str, guid: str, line: int, *, needed: bool = False) -> int | None:
        """The class of a label as in a `LabelRow`; notes its problem if it has one.

        Args:
            tag: The label as in the file.
            guid: Guid of its row.
            line: Line of its row.
            needed: Whether unlabelled rows are a problem in any split.
        """
        if not self.labelled:
            if not is_unlabelled(tag):
                self.remark("labels that are ignored", tag[:80])
            return None
        code, conversion = self.names.code_of(tag)
        if code == UNKNOWN or (needed and code is None):
            valid = ", ".join(self.classes if needed else (*self.classes, UNLABELLED))
            problem = f"unknown label {tag[:80]!r}{suggest(tag, self.classes)}"
            if len(self.unknown) < _MOST_UNKNOWN:
                self.unknown.add(tag)
            if tag in self.unknown:
                self.note(line, f"{problem}; valid: {valid} (or set [data] classes)")
            else:
                self.note(line, "unknown label", problem)
            return UNKNOWN
        if conversion:
            self.remark("labels matched without case and spaces", conversion)
        if code is None and self.split == "train":
            self.note(
                line,
                "no label in the training file; move such rows into a test file",
                f"guid {guid} has the label null in the training file",
            )
        return code

    def make_guid(self, stem: str, other: str, line: int) -> str:
        """Makes a guid that no row has yet.

        Args:
            stem: The preferred guid.
            other: Prefix of the line's number if that is taken.
            line: Line of the row.
        """
        if stem and stem not in self.first_line:
            return stem
        guid = f"{other or 'row'}-{line}"
        while guid in self.first_line:
            guid += "-2"
        self.remark(
            "guids made from the line, without a picture's name or with one used before", guid
        )
        return guid

    def _is_valid_guid(self, row: LabelRow) -> bool:
        """Whether a row's guid is valid and new; notes the problem if not."""
        guid, line = row.guid, row.line
        if not _is_plain(guid):
            cause = "guids that are not plain file names"
            self.note(line, cause, f"guid {guid!r} is not a plain file name")
            return False
        if guid in self.first_line:
            cause = "duplicate guids"
            self.note(line, cause, f"guid {guid} is already in line {self.first_line[guid]}")
            return False
        self.first_line[guid] = line
        return True


def raise_problems(problems: Sequence[str], where: Path, hint: str = REPAIR_HINT) -> None:
    """Raises all problems at once, if there are any.

    Raises:
        DataError: There are problems.
    """
    if problems:
        raise DataError(f"{len(problems)} problem(s) in {where}.", hint, problems)


def _is_plain(guid: str) -> bool:
    """Whether a guid can be a file name."""
    return not re.search(NOT_PLAIN, guid) and is_unicode(guid)
