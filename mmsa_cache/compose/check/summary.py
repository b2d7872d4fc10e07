"""Summarises an inspection in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from extract.encoders.tokenizer import count_tokens
from extract.inputs.decode import CHANGES
from extract.inputs.english import english_share
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.duplicates import group_by_key, near_groups
from mmsa_cache.data.files import plain_text
from mmsa_cache.data.inspection import CODECS, InspectedPost, Inspection, Problem
from mmsa_cache.data.layouts.listing import UNLABELLED
from mmsa_cache.errors import ModelError
from mmsa_cache.json_value import JsonObject

TEXT, PLAIN_TEXT, PICTURE, LOOK = (
    "text",
    "text without RT and URLs",
    "picture",
    "picture that looks alike",
)
"""The ways in which posts repeat each other."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Minimum, median, 95 % quantile and maximum."""

    min: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Quantiles | None:
        """The quantiles of values; None without values."""
        if not values:
            return None
        return cls(*np.quantile(values, [0, 0.5, 0.95, 1], method="lower").tolist())


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Rows of a split."""

    split: str
    rows: int
    bad: int
    labels: dict[str, int]
    """By label, as label files write it."""


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Token lengths of the texts by the tokenizer of the text model."""

    model: str
    lengths: Quantiles | None
    max_tokens: int
    truncated: int
    """Texts with more than `max_tokens`."""
    unknown_share: float
    texts_with_unknown: int


@dataclass(frozen=True, slots=True)
class NoTokens:
    """Why there are no token lengths."""

    model: str
    missing: str


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Counts of the texts of all rows."""

    readable: int
    empty: int
    files: int
    valid_as: dict[str, int]
    """Encoding → files that are valid in it."""
    with_bom: int
    undecodable_files: int
    undecodable_places: int
    undecodable: list[str]
    """Guids of the files that are not valid in the declared encoding."""
    characters: Quantiles | None
    cut_to_max_chars: int
    english: float | None
    """Share of the texts with words that look English."""
    tokens: TokenLengths | NoTokens


@dataclass(frozen=True, slots=True)
class PictureCounts:
    """Counts of the pictures of all rows."""

    readable: int
    formats: dict[str, int]
    named_as_another_format: int
    converted: dict[str, int]
    flat: int
    width: Quantiles | None
    height: Quantiles | None
    bytes: Quantiles | None


@dataclass(frozen=True, slots=True)
class RepeatedRow:
    """A row of a group."""

    split: str
    guid: str
    tag: str


@dataclass(frozen=True, slots=True)
class Repetition:
    """Groups of rows that repeat each other in one way."""

    what: str
    groups: int
    rows: int
    contradicting: int
    test_rows_in_train: int
    members: list[list[RepeatedRow]]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The result of ``mmsa check``."""

    ok: bool
    data: str
    layout: str
    encoding: str
    problems: list[Problem]
    reasons: dict[str, int]
    bad_rows: int
    splits: list[SplitCounts]
    dropped: int
    unlisted: list[str]
    texts: TextCounts
    pictures: PictureCounts
    repeated: list[Repetition]
    notes: list[str]
    """How label files were read, where that is not obvious."""
    page: str | None = None
    """Path of the HTML page."""
    seconds: float = 0.0

    def as_json(self) -> JsonObject:
        """Plain values; ``page`` only where there is one."""
        values = asdict(self)
        return values if self.page else {k: v for k, v in values.items() if k != "page"}


def summarise(inspection: Inspection, settings: Settings) -> DataSummary:
    """Summarises an inspection."""
    return DataSummary(
        ok=not inspection.problems,
        data=str(inspection.root),
        layout=inspection.layout,
        encoding=settings.data.encoding,
        problems=inspection.problems,
        reasons=dict(Counter(problem.reason for problem in inspection.problems).most_common()),
        bad_rows=sum(bool(post.faults) for post in inspection.posts),
        splits=[_split(inspection, split) for split in inspection.labels],
        dropped=inspection.dropped,
        unlisted=inspection.unlisted,
        texts=_texts(inspection.posts, settings),
        pictures=_pictures([post for post in inspection.posts if post.decoded]),
        repeated=_repeated(inspection),
        notes=inspection.notes,
    )


def _split(inspection: Inspection, split: str) -> SplitCounts:
    count = inspection.labels[split]
    tags: list[tuple[int | None, str]] = [*enumerate(inspection.classes), (None, UNLABELLED)]
    labels = {tag: count[code] for code, tag in tags if count[code]}
    bad = sum(bool(post.faults) for post in inspection.posts if post.split == split)
    return SplitCounts(split, count.total(), bad, labels)


def tag_of(inspection: Inspection, post: InspectedPost) -> str:
    """The label of a row as label files write it."""
    return UNLABELLED if post.label is None else inspection.classes[post.label]


def _texts(posts: Sequence[InspectedPost], settings: Settings) -> TextCounts:
    texts = [post.text for post in posts if post.text is not None]
    files = [post for post in posts if post.codecs or post.undecodable or post.bom]
    limit = settings.data.max_chars
    return TextCounts(
        readable=len(texts),
        empty=sum(not text for text in texts),
        files=len(files),
        valid_as={codec: sum(codec in post.codecs for post in files) for codec in CODECS},
        with_bom=sum(post.bom for post in files),
        undecodable_files=sum(post.undecodable > 0 for post in posts),
        undecodable_places=sum(post.undecodable for post in posts),
        undecodable=[post.guid for post in posts if post.undecodable],
        characters=Quantiles.of([len(text) for text in texts]),
        cut_to_max_chars=sum(len(text) > limit for text in texts) if limit else 0,
        english=english_share(texts),
        tokens=_tokens([text[:limit] for text in texts], settings),
    )


def _tokens(texts: Sequence[str], settings: Settings) -> TokenLengths | NoTokens:
    joint = settings.joint.model
    model = joint or settings.text.model
    if not texts:
        return NoTokens(model, "no text was read")
    try:
        counts, limit = count_tokens(
            texts, model, settings.text.max_tokens, joint=joint is not None
        )
    except ModelError as error:
        return NoTokens(model, error.message)
    tokens = sum(count.tokens for count in counts)
    return TokenLengths(
        model,
        Quantiles.of([count.tokens for count in counts]),
        limit,
        sum(count.tokens > limit for count in counts),
        sum(count.unknown for count in counts) / max(1, tokens),
        sum(count.unknown > 0 for count in counts),
    )


def _pictures(posts: Sequence[InspectedPost]) -> PictureCounts:
    changes = {change: sum(change in post.changes for post in posts) for change in CHANGES}
    return PictureCounts(
        readable=len(posts),
        formats=dict(Counter(post.kind for post in posts).most_common()),
        named_as_another_format=sum(post.misnamed for post in posts),
        converted={change: count for change, count in changes.items() if count},
        flat=sum(post.perceptual_hash is None for post in posts),
        width=Quantiles.of([post.width for post in posts]),
        height=Quantiles.of([post.height for post in posts]),
        bytes=Quantiles.of([post.picture_bytes for post in posts]),
    )


def _repeated(inspection: Inspection) -> list[Repetition]:
    """Posts that repeat each other, in four ways."""
    posts = inspection.posts
    pictures = [post.picture_sha256 for post in posts]
    look_alike = [
        group
        for group in near_groups([post.perceptual_hash for post in posts])
        if len({pictures[index] for index in group}) > 1
    ]
    kinds: dict[str, Iterable[list[int]]] = {
        TEXT: group_by_key(post.text or None for post in posts),
        PLAIN_TEXT: group_by_key(plain_text(post.text or "") or None for post in posts),
        PICTURE: group_by_key(pictures),
        LOOK: look_alike,
    }
    return [
        _count_groups(inspection, what, [[posts[i] for i in group] for group in groups])
        for what, groups in kinds.items()
    ]


def _count_groups(
    inspection: Inspection, what: str, groups: Sequence[Sequence[InspectedPost]]
) -> Repetition:
    return Repetition(
        what=what,
        groups=len(groups),
        rows=sum(map(len, groups)),
        contradicting=sum(contradicts(group) for group in groups),
        test_rows_in_train=sum(map(leaking, groups)),
        members=[
            [RepeatedRow(p.split, p.guid, tag_of(inspection, p)) for p in group] for group in groups
        ],
    )


def contradicts(group: Sequence[InspectedPost]) -> bool:
    """Whether the rows of a group have different labels."""
    return len({post.label for post in group if post.label is not None}) > 1


def leaking(group: Sequence[InspectedPost]) -> int:
    """Number of test rows of a group that has other rows too."""
    tests = sum(post.split == "test" for post in group)
    return tests if tests < len(group) else 0
