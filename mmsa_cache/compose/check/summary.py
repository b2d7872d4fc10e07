"""What an inspection found, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from extract.encoders.tokenizer import count_tokens
from extract.inputs.decode import CHANGES
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.duplicates import groups_of, near_groups
from mmsa_cache.data.inspection import CODECS, Inspection, Post
from mmsa_cache.data.layouts.listing import UNLABELLED
from mmsa_cache.data.splits import plain_text
from mmsa_cache.errors import ModelError

TEXT, PLAIN_TEXT, PICTURE, LOOK = (
    "text",
    "text without RT and URLs",
    "picture",
    "picture that looks alike",
)
"""The ways in which posts repeat each other."""


def describe(found: Inspection, settings: Settings) -> dict[str, Any]:
    bad = [post for post in found.posts if post.faults]
    reasons = Counter(problem.reason for problem in found.problems)
    return {
        "ok": not found.problems,
        "data": str(found.root),
        "layout": found.layout,
        "encoding": settings.data.encoding,
        "problems": [asdict(problem) for problem in found.problems],
        "reasons": dict(reasons.most_common()),
        "bad_rows": len(bad),
        "splits": _splits(found),
        "dropped": found.dropped,
        "unlisted": found.unlisted,
        "texts": _texts(found.posts, settings),
        "pictures": _pictures(found.posts),
        "repeated": _repeated(found),
    }


def _splits(found: Inspection) -> list[dict[str, Any]]:
    splits = []
    for split in dict.fromkeys(post.split for post in found.posts):
        posts = [post for post in found.posts if post.split == split]
        count = Counter(tag_of(found, post) for post in posts)
        splits.append(
            {
                "split": split,
                "rows": len(posts),
                "bad": sum(bool(post.faults) for post in posts),
                "labels": {tag: count[tag] for tag in (*found.classes, UNLABELLED) if count[tag]},
            }
        )
    return splits


def tag_of(found: Inspection, post: Post) -> str:
    """A row's label as label files write it."""
    return UNLABELLED if post.label is None else found.classes[post.label]


def _texts(posts: Sequence[Post], settings: Settings) -> dict[str, Any]:
    texts = [post.text for post in posts if post.text is not None]
    files = [post for post in posts if post.codecs or post.undecodable or post.bom]
    limit = settings.data.max_chars
    return {
        "readable": len(texts),
        "empty": sum(not text for text in texts),
        "files": len(files),
        "valid_as": {codec: sum(codec in post.codecs for post in files) for codec in CODECS},
        "with_bom": sum(post.bom for post in files),
        "undecodable_files": sum(post.undecodable > 0 for post in posts),
        "undecodable_places": sum(post.undecodable for post in posts),
        "undecodable": [post.guid for post in posts if post.undecodable],
        "characters": _spread([len(text) for text in texts]),
        "cut_to_max_chars": sum(len(text) > limit for text in texts) if limit else 0,
        "tokens": _tokens([text[:limit] for text in texts], settings),
    }


def _tokens(texts: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Token lengths by the text model's own tokenizer, or why there are none."""
    joint = settings.joint.model
    model = joint or settings.text.model
    try:
        counts, limit = count_tokens(
            texts, model, settings.text.max_tokens, joint=joint is not None
        )
    except ModelError as error:
        return {"model": model, "missing": error.message}
    tokens = sum(count.tokens for count in counts)
    return {
        "model": model,
        "lengths": _spread([count.tokens for count in counts]),
        "max_tokens": limit,
        "truncated": sum(count.tokens > limit for count in counts),
        "unknown_share": sum(count.unknown for count in counts) / max(1, tokens),
        "texts_with_unknown": sum(count.unknown > 0 for count in counts),
    }


def _pictures(posts: Sequence[Post]) -> dict[str, Any]:
    found = [post for post in posts if post.decoded]
    return {
        "readable": len(found),
        "formats": dict(Counter(post.kind for post in found).most_common()),
        "named_as_another_format": sum(post.misnamed for post in found),
        "converted": {
            change: count
            for change in CHANGES
            if (count := sum(change in post.changes for post in found))
        },
        "flat": sum(post.look is None for post in found),
        "width": _spread([post.width for post in found]),
        "height": _spread([post.height for post in found]),
        "bytes": _spread([post.picture_bytes for post in found]),
    }


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    """Smallest, middle, 95 % and largest value; None of nothing."""
    if not values:
        return None

    low, middle, most, high = np.quantile(values, [0, 0.5, 0.95, 1], method="lower").tolist()
    return {"min": low, "median": middle, "p95": most, "max": high}


def _repeated(found: Inspection) -> list[dict[str, Any]]:
    """Posts that repeat each other, in four ways."""
    posts = found.posts
    pictures = [post.picture_sha256 for post in posts]
    alike = [
        group
        for group in near_groups([post.look for post in posts])
        if len({pictures[place] for place in group}) > 1
    ]
    kinds: dict[str, Iterable[list[int]]] = {
        TEXT: groups_of(post.text or None for post in posts),
        PLAIN_TEXT: groups_of(plain_text(post.text or "") or None for post in posts),
        PICTURE: groups_of(pictures),
        LOOK: alike,
    }
    return [
        {"what": what, **_count_groups(found, [[posts[i] for i in g] for g in groups])}
        for what, groups in kinds.items()
    ]


def _count_groups(found: Inspection, groups: Sequence[Sequence[Post]]) -> dict[str, Any]:
    return {
        "groups": len(groups),
        "rows": sum(map(len, groups)),
        "contradicting": sum(contradicts(group) for group in groups),
        "test_rows_in_train": sum(map(leaking, groups)),
        "members": [
            [{"split": p.split, "guid": p.guid, "tag": tag_of(found, p)} for p in group]
            for group in groups
        ],
    }


def contradicts(group: Sequence[Post]) -> bool:
    """Whether the labels of a group differ."""
    return len({post.label for post in group if post.label is not None}) > 1


def leaking(group: Sequence[Post]) -> int:
    """Test rows of a group that has training rows too."""
    tests = sum(post.split == "test" for post in group)
    return tests if tests < len(group) else 0
