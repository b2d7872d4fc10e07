"""What was found, as text."""

from __future__ import annotations

from mmsa_cache.console import format_table
from mmsa_cache.data.layouts.listing import UNLABELLED
from mmsa_cache.escaping import single_line

from .config import halves
from .look import Found, TableFound

_MOST = 10
"""Problems that are listed; ``mmsa check`` has all."""


def format_found(found: Found) -> str:
    """A data set as tables and sentences."""
    parts = [
        f"{found.data}: layout {found.layout}, {_encoding(found)}.",
        _splits(found),
        _tables(found.tables),
        _posts(found),
        "\n".join(f"Note: {note}." for note in (*found.notes, *_remarks(found))),
    ]
    if found.problems:
        more = [f"  … and {len(found.problems) - _MOST} more"] * (len(found.problems) > _MOST)
        lines = [f"  - {problem}" for problem in found.problems[:_MOST]]
        parts.append("\n".join(["To be mended:", *lines, *more]))
    return "\n\n".join(part for part in parts if part)


def _encoding(found: Found) -> str:
    if not found.encodings:
        return f"texts in no encoding that was tried, read as {found.encoding}"
    others = " or ".join(found.encodings[1:])
    return f"texts as {found.encoding}" + (f" (could be {others})" if others else "")


def _splits(found: Found) -> str:
    tags = list(dict.fromkeys(tag for split in found.splits for tag in split.labels))
    tags.sort(key=[*found.classes, UNLABELLED].index)
    return format_table(
        ["split", "rows", *("unlabelled" if tag == UNLABELLED else tag for tag in tags), "files"],
        [
            [s.split, str(s.rows), *(str(s.labels.get(tag, 0)) for tag in tags), _files(s.files)]
            for s in found.splits
        ],
    )


def _files(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f", … ({len(names)})" if len(names) > 2 else "")


def _tables(tables: list[TableFound]) -> str:
    alike: dict[str, list[str]] = {}
    for table in tables:
        used = [f"{role} is {name!r}" for role, name in table.columns.items() if name is not None]
        none = [role for role, name in table.columns.items() if name is None]
        said = ", ".join(used) + (f"; none of {', '.join(none)}" if none else "")
        alike.setdefault(said, []).append(table.file)
    return "\n".join(f"Columns of {', '.join(files)}: {said}." for said, files in alike.items())


def _posts(found: Found) -> str:
    lines = [
        line
        for post in found.posts
        for line in (
            f"  {post.guid}, {post.label}, {post.picture or 'no picture'}",
            f"    {post.text}",
        )
    ]
    return "\n".join(["First posts:", *map(single_line, lines)])


def _remarks(found: Found) -> list[str]:
    """What is to be decided, each with its key."""
    remarks = []
    if found.halves:
        remarks.append(f"{halves(found)}: [data] missing")
    for split in found.splits:
        if split.absent:
            some = ", ".join(split.first_absent) + (", …" if split.absent > 3 else "")
            remarks.append(f"{split.absent} pictures of {split.split} are not there: {some}")
    if len(found.encodings) > 1:
        remarks.append("look at the posts: another encoding is given with --encoding")
    return remarks
