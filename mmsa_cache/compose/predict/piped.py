"""``mmsa predict --data -``: JSON lines of posts come in, predictions go out as they come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path

from extract.inputs.undecodable import find_undecodable
from mmsa_cache.console import say
from mmsa_cache.data.pairs import ABSENT, Sample
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import parse_json

from .bulk import OnBad, json_row
from .predict import WHOLE_PAIRS
from .predictor import Predictor

_WINDOW = 256
"""Posts that are encoded at a time, where so many have come."""
_LONGEST = 16 << 20
"""Bytes of a line."""
_PIECE = 1 << 20
_FORM = 'Write {"text": …, "image": FILE} on a line, and a "guid" if you like.'


@dataclass(frozen=True, slots=True)
class _Bad:
    guid: str
    error: str


def predict_lines(
    model: Predictor, lines: BufferedIOBase, write: Callable[[str], None], on_bad: OnBad
) -> list[str]:
    """Predicts posts as they come, and writes a JSON line each, in order.

    A post has a ``text``, the path of an ``image``, or both, and may have a ``guid``; else the
    number of its line is one.

    Args:
        model: Predicts.
        lines: JSON lines.
        write: Takes what is to be written.
        on_bad: ``skip``: a bad post has an ``error`` in the place of probabilities.

    Returns:
        The guids of the bad ones.

    Raises:
        DataError: A post is bad and not to be skipped; those before it are written.
    """
    bad: list[str] = []
    warned = model.knows_halves
    for window in _windows(lines):
        posts = [_post(model, number, line) for number, line in window if line.strip()]
        wrong = [post for post in posts if isinstance(post, _Bad)]
        if wrong and on_bad == "fail":
            posts = posts[: posts.index(wrong[0])]
        good = [post for post in posts if isinstance(post, Sample)]
        if not warned and any(ABSENT in (post.text_sha256, post.image_sha256) for post in good):
            say(WHOLE_PAIRS)
            warned = True
        found = model.predict_posts(good) if good else []
        rows = zip(model.decide(found) if good else [], found, strict=True)
        for post in posts:
            if isinstance(post, _Bad):
                bad.append(post.guid)
                row = json_row(model.classes, (post.guid, None, None)) | {"error": post.error}
            else:
                row = json_row(model.classes, (post.guid, *next(rows)))
            write(json.dumps(row, ensure_ascii=False))
        if wrong and on_bad == "fail":
            raise DataError(f"{wrong[0].error}.", f"{_FORM} --on-bad skip leaves bad ones empty.")
    return bad


def _windows(lines: BufferedIOBase) -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines from 1, all that have come, so many at most."""
    number, rest = itertools.count(1), b""
    while piece := lines.read1(_PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST:
            place = next(number) + len(whole)
            raise DataError(f"line {place} is longer than {_LONGEST} bytes.", _FORM)
        yield from _cut([(next(number), line) for line in whole])
    if rest:
        yield [(next(number), rest)]


def _cut(lines: list[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    for first in range(0, len(lines), _WINDOW):
        yield lines[first : first + _WINDOW]


def _post(model: Predictor, number: int, line: bytes) -> Sample | _Bad:
    guid = str(number)
    try:
        record = parse_json(line)
        if not isinstance(record, dict):
            raise DataError("it is no JSON object")
        own = record.get("guid")
        if not isinstance(own, str | int | float | None):
            raise DataError("guid is neither a string nor a number")
        if own is not None:
            str(own).encode()  # halves of characters are no text
            guid = str(own)
        text, image = record.get("text") or None, record.get("image") or None
        if not all(value is None or isinstance(value, str) for value in (text, image)):
            raise DataError("text and image are no strings")
        if text is None and image is None:
            raise DataError("there is neither a text nor a picture")
        sample = model.post(text, None if image is None else Path(image))
        broken = find_undecodable([sample], lambda _: None)
        if broken:
            raise DataError("; ".join(broken[0].messages))
        return replace(sample, guid=guid)
    except DataError as error:
        return _Bad(guid, f"line {number}: {error.message}")
    except ValueError as error:
        return _Bad(guid, f"line {number}: not JSON of Unicode text ({error})")
