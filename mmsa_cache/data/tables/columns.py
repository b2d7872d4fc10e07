"""Which column of a table holds the texts, the pictures, the labels and the guids."""

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
"""Names that are taken for a column, whatever their case; the first of those that are there."""
_SAME = ("label", "tag")
"""Names of one column: both at once are a mistake."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table by what they hold; None where there is none."""

    text: str | None = None
    image: str | None = None
    label: str | None = None
    guid: str | None = None
    left_out: tuple[str, ...] = ()
    """Columns that are not read, in order; an index has the name ``""`` or ``Unnamed: 0``."""
    problems: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        return tuple(name for name in (self.text, self.image, self.label, self.guid) if name)


def find_columns(names: Sequence[str], chosen: ColumnSettings) -> Columns:
    """Finds the columns of a table.

    Args:
        names: As they stand in the file.
        chosen: Those that the settings name.

    Returns:
        The columns; in ``problems`` those that are named and missing, or there several times.
    """
    found: dict[str, str] = {}
    problems = []
    for role in ROLES:
        wanted = getattr(chosen, role)
        at = _at(names, role) if wanted is None else _named(names, wanted)
        if wanted is not None and not at:
            problems.append(
                f"no column {wanted!r}{suggest(wanted, names)} ([data.columns] {role}, --column "
                f"{role}=NAME)"
            )
        if len({*at}) < len(at) or {*_SAME} <= {_plain(name) for name in at}:
            problems.append("a column is there twice (label and tag are the same column)")
        if at:
            found[role] = at[0]
    left_out = tuple(name for name in names if name not in found.values())
    return Columns(**found, left_out=left_out, problems=tuple(dict.fromkeys(problems)))


def _named(names: Sequence[str], wanted: str) -> list[str]:
    exact = [name for name in names if name == wanted]
    return exact or [name for name in names if _plain(name) == _plain(wanted)]


def _at(names: Sequence[str], role: str) -> list[str]:
    """The columns of a role's usual names, the most usual first."""
    usual = USUAL[role]
    known = [name for name in names if _plain(name) in usual]
    return sorted(known, key=lambda name: usual.index(_plain(name)))


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")
