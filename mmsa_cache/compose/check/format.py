"""Formats a summary as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.filesize import decimal

from extract.inputs.english import ENGLISH_SHARE
from mmsa_cache.console import format_table
from mmsa_cache.data.layouts.listing import UNLABELLED
from mmsa_cache.escaping import single_line
from mmsa_cache.names import VADER

from .summary import (
    DataSummary,
    NoTokens,
    PictureCounts,
    Quantiles,
    Repetition,
    SplitCounts,
    TextCounts,
)

MAX_LISTED = 200
"""Problems that are listed at most; ``--json`` has all."""


def format_check(record: DataSummary) -> str:
    """A summary as tables and sentences."""
    parts = [
        f"{record.data}: layout {record.layout or 'not found'}, texts as {record.encoding}.",
        _format_splits(record),
        _bullet_list("Notes", record.notes, MAX_LISTED) if record.notes else "",
        _format_texts(record.texts),
        _format_pictures(record.pictures),
        _format_repeated(record.repeated),
    ]
    if record.unlisted:
        parts.append(_bullet_list("Files that no label file names", record.unlisted, 10))
    parts.append(_format_problems(record))
    return "\n\n".join(part for part in parts if part)


def _format_splits(record: DataSummary) -> str:
    splits = record.splits
    if not splits:
        return ""
    tags = list(dict.fromkeys(tag for split in splits for tag in split.labels))

    def cell(split: SplitCounts, tag: str) -> str:
        count = split.labels.get(tag, 0)
        return f"{count} ({count / split.rows:.1%})" if count else "0"

    table = format_table(
        ["split", "rows", "bad", *("unlabelled" if tag == UNLABELLED else tag for tag in tags)],
        [[s.split, str(s.rows), str(s.bad), *(cell(s, tag) for tag in tags)] for s in splits],
    )
    dropped = record.dropped
    return table + (f"\n{dropped} more rows dropped (contradicting labels)." if dropped else "")


def _format_texts(texts: TextCounts) -> str:
    if not texts.readable and not texts.files:
        return ""
    lines = [f"Texts: {texts.readable} readable, {_range(texts.characters, 'characters')}."]
    if texts.empty:
        lines.append(f"  {texts.empty} are empty.")
    if texts.files:
        valid = ", ".join(f"{count} {codec}" for codec, count in texts.valid_as.items())
        lines.append(f"  Of {texts.files} files are valid as: {valid}.")
    if texts.with_bom:
        lines.append(f"  {texts.with_bom} begin with a byte order mark.")
    if texts.undecodable_files:
        lines.append(
            f"  {texts.undecodable_files} are not valid in the declared encoding, in "
            f"{texts.undecodable_places} places: {_first(texts.undecodable)}."
        )
    if texts.cut_to_max_chars:
        lines.append(f"  {texts.cut_to_max_chars} are cut to max_chars.")
    if texts.english is not None:
        suits = "suits" if texts.english >= ENGLISH_SHARE else "does not suit"
        lines.append(
            f"  {texts.english:.0%} look English: the sentiment lexicon {VADER} {suits} them "
            "([text] lexicon)."
        )
    tokens = texts.tokens
    if isinstance(tokens, NoTokens):
        lines.append(f"  No token lengths: the tokenizer of {tokens.model} is not here.")
    else:
        lines.append(
            f"  {tokens.model}: {_range(tokens.lengths, 'tokens')}; {tokens.truncated} "
            f"text(s) longer than {tokens.max_tokens}, which are truncated; "
            f"{tokens.unknown_share:.2%} of the tokens unknown, in "
            f"{tokens.texts_with_unknown} text(s)."
        )
    return "\n".join(lines)


def _format_pictures(pictures: PictureCounts) -> str:
    if not pictures.readable:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in pictures.formats.items())
    lines = [
        f"Pictures: {pictures.readable} readable ({kinds}).",
        f"  {_range(pictures.width, 'pixels wide')}; {_range(pictures.height, 'high')}; "
        f"{_range(pictures.bytes, '', lambda size: decimal(int(size)))}.",
    ]
    if pictures.converted:
        changes = ", ".join(f"{count} {change}" for change, count in pictures.converted.items())
        lines.append(f"  Converted: {changes}.")
    if pictures.named_as_another_format:
        lines.append(f"  {pictures.named_as_another_format} are named as another format.")
    if pictures.flat:
        lines.append(f"  {pictures.flat} show a single tone.")
    return "\n".join(lines)


def _range(
    spread: Quantiles | None, unit: str, show: Callable[[float], str] = "{:.0f}".format
) -> str:
    if spread is None:
        return "none"
    low, median, p95, high = map(show, (spread.min, spread.median, spread.p95, spread.max))
    return f"{low} to {high} {unit}".rstrip() + f" (median {median}, 95 % up to {p95})"


def _format_repeated(repeated: Sequence[Repetition]) -> str:
    if not any(kind.groups for kind in repeated):
        return ""
    titles = ["same", "groups", "rows", "contradicting labels", "test rows with a twin in train"]
    rows = [
        [kind.what]
        + [str(n) for n in (kind.groups, kind.rows, kind.contradicting, kind.test_rows_in_train)]
        for kind in repeated
    ]
    return format_table(titles, rows)


def _format_problems(record: DataSummary) -> str:
    problems = record.problems
    if not problems:
        return "Nothing is bad."
    reasons = [[reason, str(count)] for reason, count in record.reasons.items()]
    lines = [
        f"{p.split}: {p.message}{' (fatal)' if p.fatal else ''}".removeprefix(": ")
        for p in problems
    ]
    table = format_table(["problem", "times"], reasons)
    title = f"{len(lines)} problem(s), {record.bad_rows} bad row(s)"
    return f"{table}\n\n{_bullet_list(title, lines, MAX_LISTED)}"


def _first(guids: Sequence[str], most: int = 5) -> str:
    """The first names, on one line."""
    return single_line(", ".join(guids[:most])) + (", …" if len(guids) > most else "")


def _bullet_list(title: str, lines: Sequence[str], most: int) -> str:
    more = [f"  … and {len(lines) - most} more; --json has all."] if len(lines) > most else []
    return "\n".join([f"{title}:", *(f"  - {single_line(line)}" for line in lines[:most]), *more])
