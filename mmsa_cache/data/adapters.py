"""From a data folder to labelled rows, whatever its layout; no text file or picture is read here.

=========  ============================================================  ==========
layout     what lies in ``DIR``                                          splits
=========  ============================================================  ==========
report     ``train.txt``, ``test*.txt``: rows ``guid,tag``; pairs        both
tables     ``train`` and ``test`` as ``.csv``, ``.tsv`` or ``.jsonl``    both
mvsa       raw MVSA-Single or -Multiple: ``labelResultAll.txt``; pairs   train only
pairs      no label file, only pairs                                     test only
=========  ============================================================  ==========

Pairs are ``GUID.txt`` and ``GUID.jpg`` in ``DIR/pairs``, ``DIR/data`` or ``DIR``.

Tables have the columns ``text``, ``image`` (a path relative to the table, inside ``DIR``),
``guid`` (may be absent: then the image's file name without its ending, which does not change when
rows move) and ``label`` or ``tag`` (absent, empty or ``null`` = unlabelled, in ``test`` only).
They are read with the encoding of the texts. CSV and TSV are quoted as Python's ``csv`` writes
them; JSON Lines hold one object a line.

Raw MVSA gives the text and the picture a label each, by one or three annotators: the majority of
each is taken, then the two are merged. Every problem is noted with its line before anything raises.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from mmsa_cache.disk import read_plain
from mmsa_cache.errors import BadFileError, DataError

LABELS = ("positive", "neutral", "negative")
"""Class names; a class's code is its place here (the report's 0, 1, 2)."""
NEUTRAL = "neutral"
UNLABELLED = "null"
"""What a label file says of a row without a label."""
HEADER = "guid,tag"
SPLITS = ("train", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_TEXT_BYTES = 1 << 20
MAX_LABEL_BYTES = 1 << 30
LEADS_OUT = "leads out of the data folder"
"""Reason of the one fault of a row that ends everything, whatever is to be done with bad rows."""
EMPTY_TEXT = "empty text"

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
_MVSA_FILE = "labelResultAll.txt"
_MVSA_LAYOUTS = {1: "MVSA-Single", 3: "MVSA-Multiple"}
"""Annotators a row → name."""
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "report": {"train": ("train.txt",), "test": ("test*.txt",)},
    "tables": {split: tuple(split + suffix for suffix in _TABLE_SUFFIXES) for split in SPLITS},
    "mvsa": {"train": (_MVSA_FILE,), "test": ()},
}
_REQUIRED = ("text", "image")
_COLUMNS = (*_REQUIRED, "guid", "label", "tag")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Intake:
    """What reading a split kept, merged and dropped."""

    layout: str
    """``report``, ``tables``, ``MVSA-Single``, ``MVSA-Multiple`` or ``pairs``."""
    split: str
    kept: Mapping[str, int]
    """Rows kept of each label, ``null`` included; labels without rows are left out."""
    merged: int
    """Kept rows whose label came from a neutral and a polar one."""
    dropped: int
    """Rows whose labels contradict each other."""
    aside: int = 0
    """Rows set aside because their text or picture cannot be used."""
    replaced: tuple[str, ...] = ()
    """Kept rows of whose texts some bytes were replaced, not being valid in the encoding."""

    def summary(self) -> str:
        """One line for a person."""
        counts = ", ".join(
            f"{count} {'unlabelled' if tag == UNLABELLED else tag}"
            for tag, count in self.kept.items()
        )
        return (
            f"Data: layout {self.layout}, split {self.split}: {sum(self.kept.values())} rows kept "
            f"({counts}), {self.merged} of them merged from a neutral and a polar label; "
            f"{self.dropped} dropped (contradicting labels)"
            + (f"; {self.aside} set aside (bad files)." if self.aside else ".")
            + self._told_of_replaced()
        )

    def _told_of_replaced(self) -> str:
        if not self.replaced:
            return ""
        some = ", ".join(self.replaced[:5]) + (", …" if len(self.replaced) > 5 else "")
        return f" Bytes not valid in the encoding were replaced in {len(self.replaced)}: {some}."


@dataclass(frozen=True, slots=True)
class Layout:
    """Which layout a data folder has, and the files that hold each split's rows."""

    name: str
    files: Mapping[str, Sequence[Path]]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read."""
        return tuple(split for split in SPLITS if self.files[split])


@dataclass(slots=True)
class Listing:
    """The rows of one split while they are read, and what is wrong with them."""

    source: Path
    """The label file, or the folder of unlabelled pairs."""
    layout: str
    classes: tuple[str, ...] = LABELS
    folder: Path = Path()
    """Where the pairs lie; for tables the folder that image paths start from."""
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
        self.problems.append(f"{where}: {problem}")

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
            self.note(line, f"guid {guid} stands already in line {self.first_line[guid]}")
            return False
        self.first_line[guid] = line
        if unknown is not None:
            self.refused.append(row)
        return unknown is None

    def add(self, row: LabelRow, tag: str) -> None:
        """Adds a row with one label, if it is right."""
        if self.accepts(row, (tag,), (*self.classes, UNLABELLED)):
            label = None if tag == UNLABELLED else self.classes.index(tag)
            self.rows.append(replace(row, label=label))


def find_layout(root: Path) -> Layout:
    """Says which layout a data folder has.

    Raises:
        DataError: No folder, no layout, or two layouts at once.
    """
    if not root.is_dir():
        raise DataError(f"There is no data folder {root}.", "Give an existing one with --data DIR.")
    found = [
        layout
        for name, patterns in _FILES.items()
        if (layout := Layout(name, {s: _matches(root, patterns[s]) for s in SPLITS})).splits
    ]
    if not found:
        folders = [f for f in _pair_folders(root) if set.intersection(*_stems(f))]
        found = [Layout("pairs", {"train": (), "test": (folder,)}) for folder in folders]
    if len(found) > 1:
        files = [layout.files[layout.splits[0]][0] for layout in found]
        names = " and ".join(file.relative_to(root).as_posix() or "." for file in files)
        raise DataError(
            f"{root} holds several data layouts at once: {names}.", "Keep only one of them there."
        )
    return found[0] if found else Layout("report", {"train": (), "test": ()})


def list_rows(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    classes: tuple[str, ...] = LABELS,
) -> Listing:
    """Lists the rows of a split in the order of its label file; pairs without one by guid.

    Args:
        root: The data folder.
        split: ``train`` or ``test``.
        encoding: Of the texts, hence of a table; other label files are UTF-8.
        encoding_errors: ``strict`` or ``replace``.
        classes: Class names; a class's code is its place.

    Returns:
        The rows, and in ``problems`` all that is wrong with the label file.

    Raises:
        DataError: The layout, the file of the split or the folder of the pairs is not found.
    """
    layout = find_layout(root)
    listing = Listing(_source(root, layout, split), layout.name, classes, root)
    if layout.name == "tables":
        check_encoding(encoding)
        _list_table(listing, split, encoding, encoding_errors)
    elif layout.name == "mvsa":
        _list_mvsa(listing)
    elif layout.name == "pairs":
        _list_pairs(listing)
    else:
        _list_report(listing)
    if not listing.rows and not listing.problems:
        listing.note(0, "no rows after the header" if not listing.dropped else "no row is left")
    if split == "train":
        for row in listing.rows:
            if row.label is None:
                listing.note(row.line, f"guid {row.guid} has the label null in the training file")
    readable = [*listing.rows, *listing.refused]
    if layout.name in ("report", "mvsa") and readable:
        try:
            listing.folder = pairs_folder(root, readable)
        except DataError:
            raise_problems(listing.problems, listing.source)
            raise
    return listing


def read_labels(
    path: Path, problems: list[str] | None = None, classes: tuple[str, ...] = LABELS
) -> list[LabelRow]:
    """Reads a ``guid,tag`` file (UTF-8, with or without BOM, any line ending).

    Args:
        path: The label file.
        problems: Findings are added here; without it they are raised.
        classes: Class names; a class's code is its place.

    Raises:
        DataError: Every malformed line at once, when ``problems`` is not given.
    """
    listing = Listing(path, "report", classes)
    _list_report(listing)
    if not listing.rows and not listing.problems:
        listing.note(0, "no rows after the header")
    if problems is None:
        raise_problems(listing.problems, path)
    else:
        problems.extend(listing.problems)
    return listing.rows


def pairs_folder(root: Path, rows: Sequence[LabelRow]) -> Path:
    """Takes the first of ``DIR/pairs``, ``DIR/data`` and ``DIR`` that holds some of the pairs.

    Raises:
        DataError: None does.
    """
    for folder in _pair_folders(root):
        if any((folder / f"{row.guid}.txt").is_file() for row in rows[:100]):
            return folder
    raise DataError(
        f"None of the guids in the label file has a text in {root}/pairs, {root}/data or {root}.",
        "Put GUID.txt and GUID.jpg of every row into one of these folders.",
    )


def majority(votes: Sequence[str]) -> str | None:
    """The label that more than half of the annotators gave, if any."""
    return next((vote for vote in votes if 2 * votes.count(vote) > len(votes)), None)


def merge(text: str, image: str) -> str | None:
    """One label of a text's and a picture's: equal keep, neutral yields; else None (drop)."""
    if text == image or image == NEUTRAL:
        return text
    return image if text == NEUTRAL else None


def strip_text(text: str) -> str:
    """A text without BOM and outer white space."""
    return text.lstrip("\ufeff").strip()


def check_encoding(encoding: str) -> None:
    """Refuses an unknown encoding.

    Raises:
        DataError: Python knows no such text encoding.
    """
    try:
        "".encode(encoding)
    except LookupError as error:
        raise DataError(
            f"Unknown text encoding {encoding!r}.", "Try utf-8 or gb18030 (--encoding)."
        ) from error


def decode(data: bytes, name: str, encoding: str, errors: str, numbered: bool = False) -> str:
    """Decodes a file; its name, and if wanted the line, are for the message.

    Raises:
        BadFileError: A byte is not valid.
    """
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{name}:{line}" if numbered else name
        raise BadFileError(
            "bytes not valid in the encoding",
            f"{where}: byte {error.start} is not valid {encoding} "
            "(declare another --encoding, or encoding_errors = 'replace')",
        ) from error


def read_inside(base: Path, name: str, limit: int, *, allow_empty: bool = False) -> bytes:
    """Reads a file that must really lie in ``base`` (no link leads out) and be of sane size.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        allow_empty: A file without a byte will do.

    Raises:
        BadFileError: It does not, or it cannot be read.
    """
    path = base / name
    try:
        if not path.resolve().is_relative_to(base):
            raise BadFileError(LEADS_OUT, f"{name}: {LEADS_OUT}")
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise BadFileError("unreadable", f"{name}: not a regular file")  # a pipe would block
        if found.st_size > limit:
            raise BadFileError(
                "too large", f"{name}: {found.st_size} bytes, more than the limit of {limit}"
            )
        data = path.read_bytes()
        if not data and not allow_empty:
            raise BadFileError("empty file", f"{name}: empty file")
        return data
    except FileNotFoundError as error:
        raise BadFileError("missing", f"{name}: no such file in {base}") from error
    except OSError as error:
        raise BadFileError("unreadable", f"{name}: {error.strerror}") from error
    except RuntimeError as error:  # Python 3.11 and 3.12: a loop of links
        raise BadFileError("unreadable", f"{name}: {error}") from error


MEND = "Mend the files or take their rows out of the label file; nothing was changed."


def raise_problems(problems: Sequence[str], where: Path, hint: str = MEND) -> None:
    """Raises all problems at once, if there are any.

    Raises:
        DataError: There are.
    """
    if problems:
        raise DataError(f"{len(problems)} problem(s) in {where}.", hint, problems)


def _matches(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Label files of one split. ``test1.txt`` beside ``test1.jpg`` is the text of a pair."""
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file()]
    return [path for path in paths if not _is_text_of_pair(path)]


def _is_text_of_pair(path: Path) -> bool:
    if path.suffix != ".txt" or not any(
        path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES
    ):
        return False
    try:
        with path.open("rb") as file:
            return not file.read(16).decode("utf-8-sig", "replace").startswith(HEADER)
    except OSError:
        return False  # reading it as a label file says why


def _pair_folders(root: Path) -> tuple[Path, ...]:
    return root / "pairs", root / "data", root


def _stems(folder: Path) -> tuple[set[str], set[str]]:
    """Guids that have a text, and guids that have a picture."""
    files = [PurePath(f.name) for f in folder.iterdir()] if folder.is_dir() else []
    files = [file for file in files if not file.name.startswith(".")]
    texts = {file.stem for file in files if file.suffix == ".txt"}
    return texts, {file.stem for file in files if file.suffix in IMAGE_SUFFIXES}


def _source(root: Path, layout: Layout, split: str) -> Path:
    found = layout.files["train" if split == "train" else "test"]
    if len(found) == 1:
        return found[0]
    if layout.name == "mvsa":
        raise DataError(
            f"{layout.files['train'][0]} is raw MVSA, which has no test split.",
            "The whole of it is the split train.",
        )
    if layout.name == "pairs":
        raise DataError(
            f"{root} holds unlabelled pairs and no label file, hence no train split.",
            "All the pairs are the split test.",
        )
    wanted = " or ".join(_FILES[layout.name]["train" if split == "train" else "test"])
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root} holds several files {wanted}: {names}.", "Keep one of them there.")
    if layout.name == "tables":
        raise DataError(f"{root} holds no table {wanted}.", "Put it beside the other one.")
    raise DataError(
        f"{root} holds no label file {wanted}.",
        f"Expected a text file that begins with the line '{HEADER}', a table "
        f"({split}.csv, .tsv or .jsonl) or raw MVSA's {_MVSA_FILE}.",
    )


def _is_plain(guid: str) -> bool:
    """Whether a guid can name a file and stand in a ``guid,tag`` row."""
    return (
        guid.splitlines() == [guid]
        and not guid.startswith(".")
        and not re.search(r"[/\\,\x00]", guid)
        and _is_unicode(guid)
    )


def _is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates (a file name or JSON may hold them)."""
    return not re.search(r"[\ud800-\udfff]", text)


def _label_lines(listing: Listing, data: bytes) -> list[str]:
    """The lines of a label file in UTF-8; none when it cannot be decoded."""
    try:
        return data.decode("utf-8-sig").splitlines() or [""]
    except UnicodeDecodeError as error:
        listing.note(0, f"not UTF-8 at byte {error.start}; save the file as UTF-8")
    return []


def _body(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The lines after the header that hold something, numbered."""
    return ((n, line) for n, line in enumerate(lines[1:], start=2) if line.strip())


def _list_report(listing: Listing) -> None:
    try:
        lines = _label_lines(listing, read_plain(listing.source, MAX_LABEL_BYTES))
    except OSError as error:
        raise DataError(f"Cannot read {listing.source}: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"Cannot read {listing.source}: {error}.") from error
    if lines and lines[0].strip() != HEADER:
        seen = repr(lines[0]) if lines != [""] else "an empty file"
        listing.note(1, f"expected the header '{HEADER}', received {seen}")
    for number, line in _body(lines):
        columns = line.split(",")
        if len(columns) == 2:
            listing.add(LabelRow(columns[0].strip(), None, number), columns[1])
        else:
            listing.note(number, f"expected 2 columns, received {len(columns)}")


def _list_mvsa(listing: Listing) -> None:
    path = listing.source
    lines = _label_lines(listing, read_inside(path.parent.resolve(), path.name, MAX_LABEL_BYTES))
    header = lines[0].strip().split("\t") if lines else []
    annotators = len(header) - 1
    if lines and (
        annotators not in _MVSA_LAYOUTS or header != ["ID", *["text,image"] * annotators]
    ):
        listing.note(
            1,
            "expected the header 'ID<TAB>text,image', with one text,image (MVSA-Single) or three "
            f"(MVSA-Multiple), received {lines[0]!r}",
        )
        return
    listing.layout = _MVSA_LAYOUTS.get(annotators, listing.layout)
    for number, line in _body(lines):
        guid, *cells = line.split("\t")
        votes = [cell.split(",") for cell in cells]
        wrong = next(
            (cell for cell, vote in zip(cells, votes, strict=True) if len(vote) != 2), None
        )
        if len(cells) != annotators:
            listing.note(number, f"expected {annotators + 1} columns, received {len(cells) + 1}")
        elif wrong is not None:
            listing.note(number, f"expected the labels of text,image, received {wrong!r}")
        elif listing.accepts(
            LabelRow(guid, None, number),
            [label for vote in votes for label in vote],
            listing.classes,
        ):
            text, image = (majority(labels) for labels in zip(*votes, strict=True))
            label = merge(text, image) if text and image else None
            if label is None:
                listing.dropped += 1
                continue
            listing.merged += text != image
            listing.rows.append(LabelRow(guid, listing.classes.index(label), number))


def _list_pairs(listing: Listing) -> None:
    """Half a pair is a row too: reading it says what is missing."""
    listing.folder = listing.source
    texts, images = _stems(listing.folder)
    for guid in sorted(texts | images, key=os.fsencode):
        listing.add(LabelRow(guid, None, 0), UNLABELLED)


def _table_records(
    listing: Listing, split: str, encoding: str, errors: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    path = listing.source
    data = read_inside(path.parent.resolve(), path.name, MAX_LABEL_BYTES)
    content = decode(data, path.name, encoding, errors, numbered=True).removeprefix("\ufeff")
    if path.suffix == ".jsonl":
        return _json_records(listing, content)
    return _csv_records(listing, content, "," if path.suffix == ".csv" else "\t", split)


def data_classes(root: Path, *, encoding: str, encoding_errors: str) -> tuple[str, ...]:
    """Class names of a data folder that sets none.

    A table's own labels count only where none of the three sentiments is among them: elsewhere a
    label that is none is a mistake, which reading the rows names.

    Args:
        root: The data folder.
        encoding: Of the texts, hence of a table.
        encoding_errors: ``strict`` or ``replace``.

    Returns:
        The labels of ``train`` in alphabetical order, or the three sentiments.

    Raises:
        DataError: The folder cannot be read.
    """
    layout = find_layout(root)
    if layout.name != "tables" or not layout.files["train"]:
        return LABELS
    listing = Listing(_source(root, layout, "train"), layout.name, folder=root)
    check_encoding(encoding)
    found = {
        tag
        for _, record in _table_records(listing, "train", encoding, encoding_errors)
        if (tag := record.get("label", record.get("tag"))) and tag != UNLABELLED
    }
    usual = {tag.strip().lower() for tag in found} & set(LABELS)
    return LABELS if usual or len(found) < 2 else tuple(sorted(found))


def _list_table(listing: Listing, split: str, encoding: str, errors: str) -> None:
    path = listing.source
    for line, record in _table_records(listing, split, encoding, errors):
        text, image = strip_text(record["text"]), record["image"]
        if not image or "\0" in image or not _is_unicode(image) or PurePath(image).is_absolute():
            listing.note(
                line, f"image {image!r} is not a path relative to the folder of {path.name}"
            )
            continue
        guid = record.get("guid", PurePath(image).stem)
        tag = record.get("label", record.get("tag")) or UNLABELLED
        listing.add(LabelRow(guid, None, line, text, image, _flaw(text)), tag)


def _flaw(text: str) -> str:
    """Reason why a table's text cannot be used; empty where it can."""
    if not text:
        return EMPTY_TEXT
    if "\0" in text or not _is_unicode(text):
        return "text holds a NUL or half a surrogate pair"
    if len(text.encode()) > MAX_TEXT_BYTES:
        return f"text is longer than {MAX_TEXT_BYTES} bytes"
    return ""


def _check_columns(listing: Listing, line: int, columns: Sequence[str], labelled: bool) -> bool:
    """Notes unknown, doubled and missing columns; True when the row can be used all the same."""
    unknown = [name for name in columns if name not in _COLUMNS]
    missing = [name for name in _REQUIRED if name not in columns]
    if labelled and not {"label", "tag"} & set(columns):
        missing.append("label")
    if unknown:
        names = ", ".join(map(repr, unknown))
        listing.note(line, f"unknown column {names}; known: {', '.join(_COLUMNS)}")
    if missing:
        listing.note(line, f"no column {', '.join(missing)}; received {list(columns)}")
    doubled = len(set(columns)) < len(columns) or {"label", "tag"} <= set(columns)
    if doubled:
        listing.note(line, f"a column stands there twice (label and tag are one): {columns}")
    return not missing and not doubled


def _csv_records(
    listing: Listing, content: str, delimiter: str, split: str
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1  # a quoted cell may go over several lines
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            listing.note(line, f"{error} (is a quote left open?)")
            continue
        if header is None:
            header = cells
            if not _check_columns(listing, line, header, split == "train"):
                return
        elif len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            listing.note(line, f"expected {len(header)} columns, received {len(cells)}")


def _json_records(listing: Listing, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, source in enumerate(content.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            items = json.loads(source, object_pairs_hook=_Items)
        except (ValueError, RecursionError) as error:
            listing.note(line, f"not JSON ({error})")
            continue
        if not isinstance(items, _Items):
            listing.note(line, 'expected one object a line, as {"text": …, "image": …}')
            continue
        if not _check_columns(listing, line, [key for key, _ in items], False):
            continue
        record = {key: value for key, value in items if value is not None or key in _REQUIRED}
        if type(record.get("guid")) is int:
            record["guid"] = str(record["guid"])
        wrong = [key for key in record if key in _COLUMNS and not isinstance(record[key], str)]
        for key in wrong:
            listing.note(line, f"column {key} holds {record[key]!r}, expected a string")
        if not wrong:
            yield line, record


class _Items(list[tuple[str, Any]]):
    """The members of a JSON object, doubled names included."""
