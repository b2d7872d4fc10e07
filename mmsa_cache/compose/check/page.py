"""The picture page of ``mmsa check``: one HTML file that opens offline, without scripts.

Pictures are decoded and encoded again, so nothing of a file's own bytes is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.data.inspection import InspectedPost, Inspection
from mmsa_cache.errors import BadFileError

from ..pages.shell import page_templates, printable
from ..pages.thumbnails import Thumbnail, thumbnail
from .format import format_check
from .summary import LOOK, PICTURE, PLAIN_TEXT, DataSummary, contradicts, leaking, tag_of

MOST = 24
"""Rows or groups in a section."""
MOST_IN_GROUP = 4
"""Rows shown of a group."""
MAX_CHARS = 400
"""Characters shown of a text."""
THUMBNAIL = 144
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
        return cls(key, title, [Group("", every[:MOST])], len(every[:MOST]), len(every))

    @classmethod
    def of_groups(
        cls, key: str, title: str, groups: Iterable[Sequence[InspectedPost]]
    ) -> PageSection:
        every = list(groups)
        shown = [_group(posts) for posts in every[:MOST]]
        return cls(key, title, shown, len(shown), len(every), grouped=True)


def render(found: Inspection, summary: DataSummary) -> str:
    """Writes the page.

    Returns:
        HTML, to be saved as UTF-8.
    """
    groups = _members(found, summary, PLAIN_TEXT, PICTURE)
    undecodable = [post for post in found.posts if post.undecodable and not post.faults]
    undecodable.sort(key=lambda post: -post.undecodable)
    sections = [
        PageSection.of_rows("bad", "Bad rows", (p for p in found.posts if p.faults)),
        PageSection.of_groups(
            "contradicting", "Same post, other label", filter(contradicts, groups)
        ),
        PageSection.of_groups("leaks", "Test rows with a twin in train", filter(leaking, groups)),
        PageSection.of_groups("alike", "Pictures that look alike", _members(found, summary, LOOK)),
        PageSection.of_rows("undecodable", "Texts not valid in the encoding", undecodable),
        PageSection.of_rows(
            "converted", "Converted pictures", (p for p in found.posts if p.changes)
        ),
    ]
    template = page_templates(Path(__file__).parent).get_template("page.html.j2")
    return printable(
        template.render(
            record=summary,
            summary=format_check(summary),
            sections=[section for section in sections if section.total],
            tag=lambda post: tag_of(found, post),
            picture=_pictures(),
            max_chars=MAX_CHARS,
        )
    )


def _members(found: Inspection, summary: DataSummary, *kinds: str) -> list[list[InspectedPost]]:
    """The groups of some kinds of repetition; a set of rows that repeats in several ways once."""
    posts = {(post.split, post.guid): post for post in found.posts}
    groups = [
        [posts[member.split, member.guid] for member in group]
        for repeated in summary.repeated
        if repeated.what in kinds
        for group in repeated.members
    ]
    return list({tuple(id(post) for post in group): group for group in groups}.values())


def _group(posts: Sequence[InspectedPost]) -> Group:
    """One row of each split and label comes first, so that they are among those shown."""
    first: dict[tuple[str, int | None], InspectedPost] = {}
    for post in posts:
        first.setdefault((post.split, post.label), post)
    chosen = list(first.values())
    varied = chosen + [post for post in posts if post not in chosen]
    cut = f", {MOST_IN_GROUP} of them shown" if len(posts) > MOST_IN_GROUP else ""
    return Group(f"{len(posts)} rows{cut}", varied[:MOST_IN_GROUP])


def _pictures() -> Callable[[InspectedPost], Thumbnail | None]:
    """Gives the picture of a post, None where there is nothing to show; each is decoded once."""
    made: dict[Path, Thumbnail | None] = {}

    def picture(post: InspectedPost) -> Thumbnail | None:
        if post.picture is None or not post.decoded:
            return None
        if post.picture not in made:
            try:
                made[post.picture] = thumbnail(post.picture, THUMBNAIL)
            except (OSError, BadFileError):  # changed since it was inspected
                made[post.picture] = None
        return made[post.picture]

    return picture
