"""The profile of a data set as text."""

from __future__ import annotations

from mmsa_cache.console import format_table
from mmsa_cache.data.layouts.listing import UNLABELLED
from mmsa_cache.escaping import single_line

from .config import count_partial_rows
from .profile import DataProfile, TableProfile

_MAX_PROBLEMS = 10
"""Problems that are listed; ``mmsa check`` has all."""


def format_profile(profile: DataProfile) -> str:
    """A profile as tables and sentences."""
    parts = [
        f"{profile.data}: layout {profile.layout}, {_encoding(profile)}.",
        _splits(profile),
        _tables(profile.tables),
        _posts(profile),
        "\n".join(f"Note: {note}." for note in (*profile.notes, *_remarks(profile))),
    ]
    if profile.problems:
        more = [f"  … and {len(profile.problems) - _MAX_PROBLEMS} more"] * (
            len(profile.problems) > _MAX_PROBLEMS
        )
        lines = [f"  - {problem}" for problem in profile.problems[:_MAX_PROBLEMS]]
        parts.append("\n".join(["To be mended:", *lines, *more]))
    return "\n\n".join(part for part in parts if part)


def _encoding(profile: DataProfile) -> str:
    if not profile.encodings:
        return f"texts in no encoding that was tried, read as {profile.encoding}"
    others = " or ".join(profile.encodings[1:])
    return f"texts as {profile.encoding}" + (f" (could be {others})" if others else "")


def _splits(profile: DataProfile) -> str:
    tags = list(dict.fromkeys(tag for split in profile.splits for tag in split.labels))
    tags.sort(key=[*profile.classes, UNLABELLED].index)
    return format_table(
        ["split", "rows", *("unlabelled" if tag == UNLABELLED else tag for tag in tags), "files"],
        [
            [s.split, str(s.rows), *(str(s.labels.get(tag, 0)) for tag in tags), _files(s.files)]
            for s in profile.splits
        ],
    )


def _files(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f", … ({len(names)})" if len(names) > 2 else "")


def _tables(tables: list[TableProfile]) -> str:
    files: dict[str, list[str]] = {}
    for table in tables:
        used = [f"{role} is {name!r}" for role, name in table.columns.items() if name is not None]
        none = [role for role, name in table.columns.items() if name is None]
        columns = ", ".join(used) + (f"; none of {', '.join(none)}" if none else "")
        files.setdefault(columns, []).append(table.file)
    return "\n".join(f"Columns of {', '.join(f)}: {columns}." for columns, f in files.items())


def _posts(profile: DataProfile) -> str:
    lines = [
        line
        for post in profile.posts
        for line in (
            f"  {post.guid}, {post.label}, {post.picture or 'no picture'}",
            f"    {post.text}",
        )
    ]
    return "\n".join(["First posts:", *map(single_line, lines)])


def _remarks(profile: DataProfile) -> list[str]:
    """Decisions for the user, each with its key."""
    remarks = []
    if profile.has_partial_rows:
        remarks.append(f"{count_partial_rows(profile)}: [data] missing")
    for split in profile.splits:
        if split.absent:
            some = ", ".join(split.first_absent) + (", …" if split.absent > 3 else "")
            remarks.append(f"{split.absent} pictures of {split.split} are not there: {some}")
    if len(profile.encodings) > 1:
        remarks.append("look at the posts: another encoding is given with --encoding")
    return remarks
