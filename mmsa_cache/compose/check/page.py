"""The picture page of ``mmsa check``: one HTML file that opens offline, without scripts.

Pictures are decoded and encoded again, so nothing of a file's own bytes is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.data.inspection import Inspection, Post
from mmsa_cache.errors import BadFileError

from ..pages.shell import page_templates, printable
from ..pages.thumbnails import Thumbnail, thumbnail
from .format import format_check
from .summary import LOOK, PICTURE, PLAIN_TEXT, contradicts, leaking, tag_of

MOST = 24
"""Rows or groups in a section."""
MOST_IN_GROUP = 4
"""Rows shown of a group."""
MAX_CHARS = 400
"""Characters shown of a text."""
THUMBNAIL = 144
"""Longest side of a picture, in pixels."""


def render(found: Inspection, record: dict[str, Any]) -> str:
    """Writes the page.

    Args:
        found: What was seen.
        record: What `check.check` made of it.

    Returns:
        HTML, to be saved as UTF-8.
    """
    groups = _members(found, record, PLAIN_TEXT, PICTURE)
    cards = _Cards(found)
    sections = [
        _rows("bad", "Bad rows", [p for p in found.posts if p.faults], cards),
        _grouped("contradicting", "Same post, other label", filter(contradicts, groups), cards),
        _grouped("leaks", "Test rows with a twin in train", filter(leaking, groups), cards),
        _grouped("alike", "Pictures that look alike", _members(found, record, LOOK), cards),
        _rows(
            "undecodable",
            "Texts not valid in the encoding",
            sorted(
                (p for p in found.posts if p.undecodable and not p.faults),
                key=lambda post: -post.undecodable,
            ),
            cards,
        ),
        _rows("converted", "Converted pictures", [p for p in found.posts if p.changes], cards),
    ]
    page = (
        page_templates(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            record=record,
            summary=format_check(record),
            sections=[section for section in sections if section["total"]],
        )
    )
    return printable(page)


def _members(found: Inspection, record: dict[str, Any], *kinds: str) -> list[list[Post]]:
    """The groups of some kinds of repetition; a set of rows that stands in several once."""
    posts = {(post.split, post.guid): post for post in found.posts}
    groups = [
        [posts[member["split"], member["guid"]] for member in group]
        for repeated in record["repeated"]
        if repeated["what"] in kinds
        for group in repeated["members"]
    ]
    return list({tuple(id(post) for post in group): group for group in groups}.values())


def _rows(key: str, title: str, posts: Sequence[Post], cards: _Cards) -> dict[str, Any]:
    """A section of single rows."""
    shown = [cards(post) for post in posts[:MOST]]
    return _section(key, title, [{"title": "", "posts": shown}], len(shown), len(posts), False)


def _grouped(
    key: str, title: str, groups: Iterable[Sequence[Post]], cards: _Cards
) -> dict[str, Any]:
    """A section of groups of rows."""
    wanted = list(groups)
    shown = [
        {
            "title": f"{len(group)} rows"
            + (f", {MOST_IN_GROUP} of them shown" if len(group) > MOST_IN_GROUP else ""),
            "posts": [cards(post) for post in _varied(group)[:MOST_IN_GROUP]],
        }
        for group in wanted[:MOST]
    ]
    return _section(key, title, shown, len(shown), len(wanted), True)


def _varied(group: Sequence[Post]) -> list[Post]:
    """A group with one row of each split and label first, so that they are among those shown."""
    first: dict[tuple[str, int | None], Post] = {}
    for post in group:
        first.setdefault((post.split, post.label), post)
    chosen = list(first.values())
    return chosen + [post for post in group if post not in chosen]


def _section(
    key: str, title: str, groups: list[dict[str, Any]], shown: int, total: int, grouped: bool
) -> dict[str, Any]:
    return {
        "key": key,
        "title": title,
        "groups": groups,
        "shown": shown,
        "total": total,
        "grouped": grouped,
    }


class _Cards:
    """What the page shows of single rows; a picture is decoded once."""

    def __init__(self, found: Inspection) -> None:
        self._found = found
        self._made: dict[tuple[str, str], dict[str, Any]] = {}

    def __call__(self, post: Post) -> dict[str, Any]:
        key = (post.split, post.guid)
        if key not in self._made:
            self._made[key] = self._card(post)
        return self._made[key]

    def _card(self, post: Post) -> dict[str, Any]:
        notes = [", ".join(post.changes)] if post.changes else []
        if post.undecodable:
            notes.append(f"{post.undecodable} places not valid in the encoding")
        text = post.text
        if text is not None and len(text) > MAX_CHARS:
            text = f"{text[:MAX_CHARS]} … ({len(text)} characters)"
        return {
            "split": post.split,
            "guid": post.guid,
            "line": post.line,
            "tag": tag_of(self._found, post),
            "faults": [fault.message for fault in post.faults],
            "notes": notes,
            "text": text,
            "picture": _picture(post),
        }


def _picture(post: Post) -> Thumbnail | None:
    """None where there is nothing to show."""
    if post.picture is None or not post.decoded:
        return None
    try:
        return thumbnail(post.picture, THUMBNAIL)
    except (OSError, BadFileError):  # changed since it was inspected
        return None
