"""The page of ``mmsa check``: one HTML file without scripts, which opens offline.

Pictures are decoded and encoded again, so that no bytes of the original files are passed on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.data.inspection import InspectedPost, Inspection
from mmsa_cache.errors import BadFileError

from ..pages.shell import page_templates, printable
from ..pages.thumbnails import Thumbnail, thumbnail
from .format import format_check
from .summary import LOOK, PICTURE, PLAIN_TEXT, DataSummary, contradicts, leaking, tag_of

MAX_SHOWN = 24
"""Rows or groups of a section."""
MAX_IN_GROUP = 4
"""Rows of a group."""
MAX_CHARS = 400
"""Characters of a text."""
THUMBNAIL_SIDE = 144
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are shown together."""

    title: str
    posts: list[InspectedPost]


@dataclass(frozen=True, slots=True)
class PageSection:
    """Rows, or groups of rows, of one kind."""

    key: str
    title: str
    groups: list[Group]
    shown: int
    total: int
    grouped: bool = False

    @classmethod
    def of_rows(cls, key: str, title: str, posts: Iterable[InspectedPost]) -> PageSection:
        every = list(posts)
        return cls(key, title, [Group("", every[:MAX_SHOWN])], len(every[:MAX_SHOWN]), len(every))

    @classmethod
    def of_groups(
        cls, key: str, title: str, groups: Iterable[Sequence[InspectedPost]]
    ) -> PageSection:
        every = list(groups)
        shown = [_group(posts) for posts in every[:MAX_SHOWN]]
        return cls(key, title, shown, len(shown), len(every), grouped=True)


def render(inspection: Inspection, summary: DataSummary) -> str:
    """Renders the page as HTML, to be saved as UTF-8."""
    groups = _members(inspection, summary, PLAIN_TEXT, PICTURE)
    undecodable = [post for post in inspection.posts if post.undecodable and not post.faults]
    undecodable.sort(key=lambda post: -post.undecodable)
    sections = [
        PageSection.of_rows("bad", "Bad rows", (p for p in inspection.posts if p.faults)),
        PageSection.of_groups(
            "contradicting", "Same post, other label", filter(contradicts, groups)
        ),
        PageSection.of_groups("leaks", "Test rows with a twin in train", filter(leaking, groups)),
        PageSection.of_groups(
            "alike", "Pictures that look alike", _members(inspection, summary, LOOK)
        ),
        PageSection.of_rows("undecodable", "Texts not valid in the encoding", undecodable),
        PageSection.of_rows(
            "converted", "Converted pictures", (p for p in inspection.posts if p.changes)
        ),
    ]
    picture = functools.cache(_thumbnail)  # a row may be in several sections
    template = page_templates(Path(__file__).parent).get_template("page.html.j2")
    return printable(
        template.render(
            record=summary,
            summary=format_check(summary),
            sections=[section for section in sections if section.total],
            tag=lambda post: tag_of(inspection, post),
            picture=lambda post: picture(post.picture) if post.picture and post.decoded else None,
            max_chars=MAX_CHARS,
        )
    )


def _members(
    inspection: Inspection, summary: DataSummary, *kinds: str
) -> list[list[InspectedPost]]:
    """The groups of some kinds of repetition, equal ones once."""
    posts = {(post.split, post.guid): post for post in inspection.posts}
    groups = [
        [posts[member.split, member.guid] for member in group]
        for repeated in summary.repeated
        if repeated.what in kinds
        for group in repeated.members
    ]
    return list({tuple(id(post) for post in group): group for group in groups}.values())


def _group(posts: Sequence[InspectedPost]) -> Group:
    """A group of rows to show, with one row of each split and label first."""
    first: dict[tuple[str, int | None], InspectedPost] = {}
    for post in posts:
        first.setdefault((post.split, post.label), post)
    chosen = list(first.values())
    ordered = chosen + [post for post in posts if post not in chosen]
    cut = f", {MAX_IN_GROUP} of them shown" if len(posts) > MAX_IN_GROUP else ""
    return Group(f"{len(posts)} rows{cut}", ordered[:MAX_IN_GROUP])


def _thumbnail(path: Path) -> Thumbnail | None:
    """A small picture; None if the file has changed since it was inspected."""
    try:
        return thumbnail(path, THUMBNAIL_SIDE)
    except (OSError, BadFileError):
        return None
