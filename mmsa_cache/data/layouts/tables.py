"""Tables: CSV, TSV and JSON Lines.

Tables have the columns ``text``, ``image`` (a path relative to the table, inside ``DIR``),
``guid`` (may be absent: then the image's file name without its ending, which does not change when
rows move) and ``label`` or ``tag`` (absent, empty or ``null`` = unlabelled, in ``test`` only).
They are read with the encoding of the texts. CSV and TSV are quoted as Python's ``csv`` writes
them; JSON Lines hold one object a line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import (
    EMPTY_TEXT,
    MAX_LABEL_BYTES,
    MAX_TEXT_BYTES,
    decode,
    is_unicode,
    read_inside,
    strip_text,
)

from .listing import UNLABELLED, LabelRow, Listing

_REQUIRED = ("text", "image")
_COLUMNS = (*_REQUIRED, "guid", "label", "tag")


def list_table(listing: Listing, split: str, data: DataSettings) -> None:
    path = listing.source
    for line, record in table_records(listing, split, data):
        text, image = strip_text(record["text"]), record["image"]
        if not image or "\0" in image or not is_unicode(image) or PurePath(image).is_absolute():
            listing.note(
                line, f"image {image!r} is not a path relative to the folder of {path.name}"
            )
            continue
        guid = record.get("guid", PurePath(image).stem)
        tag = record.get("label", record.get("tag")) or UNLABELLED
        listing.add(LabelRow(guid, None, line, text, image, _flaw(text)), tag)


def table_records(
    listing: Listing, split: str, data: DataSettings
) -> Iterator[tuple[int, dict[str, str]]]:
    path = listing.source
    content = decode(
        read_inside(path.parent.resolve(), path.name, MAX_LABEL_BYTES),
        path.name,
        data.encoding,
        data.encoding_errors,
        numbered=True,
    ).removeprefix("\ufeff")
    if path.suffix == ".jsonl":
        return _json_records(listing, content)
    return _csv_records(listing, content, "," if path.suffix == ".csv" else "\t", split)


def _flaw(text: str) -> str:
    """Reason why a table's text cannot be used; empty where it can."""
    if not text:
        return EMPTY_TEXT
    if "\0" in text or not is_unicode(text):
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
        listing.note(
            line, f"a column is there twice (label and tag are the same column): {columns}"
        )
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


def _json_records(listing: Listing, content: str) -> Iterator[tuple[int, dict[str, str]]]:
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
