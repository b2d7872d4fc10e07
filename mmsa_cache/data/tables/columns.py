"""Columns of a table by role: texts, pictures, labels and guids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmsa_cache.config.sections import ColumnSettings
from mmsa_cache.names import suggest

ROLES = ("text", "image", "label", "guid")
USUAL = {
    "text": ("text", "tweet", "caption", "sentence", "content"),
    "image": ("image", "img", "image_path", "file_name", "filename", "photo"),
    "label": ("label", "tag", "sentiment", "class", "target"),
    "guid": ("guid", "id", "__key__"),
}
"""Usual names of each role's column in any case, the preferred one first."""
_SAME = ("label", "tag")
"""Names of the same column: a table with both is a mistake."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns by role; None where a table lacks one."""

    text: str | None = None
    image: str | None = None
    label: str | None = None
    guid: str | None = None
    left_out: tuple[str, ...] = ()
    """Columns that are not read, in order, such as an index ``""`` or ``Unnamed: 0``."""
    problems: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        return tuple(name for name in (self.text, self.image, self.label, self.guid) if name)


def find_columns(names: Sequence[str], chosen: ColumnSettings) -> Columns:
    """Finds the columns of a table.

    Args:
        names: All column names, as in the file.
        chosen: Columns named by the settings.

    Returns:
        The columns; ``problems`` lists chosen columns that are missing and ambiguous ones.
    """
    by_role: dict[str, str] = {}
    problems = []
    for role in ROLES:
        own_name = getattr(chosen, role)
        matches = _usual_matches(names, role) if own_name is None else _matches(names, own_name)
        if own_name is not None and not matches:
            problems.append(
                f"no column {own_name!r}{suggest(own_name, names)} ([data.columns] {role}, "
                f"--column {role}=NAME)"
            )
        if len({*matches}) < len(matches) or {*_SAME} <= {_plain(name) for name in matches}:
            problems.append("a column occurs twice (label and tag are the same column)")
        if matches:
            by_role[role] = matches[0]
    left_out = tuple(name for name in names if name not in by_role.values())
    return Columns(**by_role, left_out=left_out, problems=tuple(dict.fromkeys(problems)))


def _matches(names: Sequence[str], chosen: str) -> list[str]:
    exact = [name for name in names if name == chosen]
    return exact or [name for name in names if _plain(name) == _plain(chosen)]


def _usual_matches(names: Sequence[str], role: str) -> list[str]:
    """Columns with one of a role's usual names, the most usual first."""
    usual = USUAL[role]
    matches = [name for name in names if _plain(name) in usual]
    return sorted(matches, key=lambda name: usual.index(_plain(name)))


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")
