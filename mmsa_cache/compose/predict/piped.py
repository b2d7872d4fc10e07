"""``mmsa predict --data -``: predicts JSON lines of standard input as they arrive."""

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

from .bulk import OnBad
from .predict import WHOLE_PAIRS, row_as_json
from .predictor import Predictor

_WINDOW = 256
"""Most posts that are encoded at a time."""
_MAX_LINE_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_HINT = 'Write {"text": …, "image": FILE} on a line, and a "guid" if you like.'


@dataclass(frozen=True, slots=True)
class _BadPost:
    guid: str
    error: str


def predict_lines(
    model: Predictor, lines: BufferedIOBase, write: Callable[[str], None], on_bad: OnBad
) -> list[str]:
    """Predicts posts as they arrive, and writes a JSON line for each, in order.

    A post has a ``text``, the path of an ``image``, or both, and may have a ``guid``; the default
    is the number of its line.

    Args:
        model: The model.
        lines: JSON lines.
        write: Called with each line of output.
        on_bad: ``skip``: a bad post gets an ``error`` in place of probabilities.

    Returns:
        The guids of the bad posts.

    Raises:
        DataError: A post is bad and not to be skipped; those before it are written.
    """
    bad: list[str] = []
    warned = model.accepts_missing_modality
    for window in _windows(lines):
        posts = [_parse_post(model, number, line) for number, line in window if line.strip()]
        wrong = [post for post in posts if isinstance(post, _BadPost)]
        if wrong and on_bad == "fail":
            posts = posts[: posts.index(wrong[0])]
        good = [post for post in posts if isinstance(post, Sample)]
        if not warned and any(ABSENT in (post.text_sha256, post.image_sha256) for post in good):
            say(WHOLE_PAIRS)
            warned = True
        probabilities = model.predict_posts(good) if good else []
        predictions = zip(model.decide(probabilities) if good else [], probabilities, strict=True)
        for post in posts:
            if isinstance(post, _BadPost):
                bad.append(post.guid)
                row = row_as_json(model.classes, (post.guid, None, None)) | {"error": post.error}
            else:
                row = row_as_json(model.classes, (post.guid, *next(predictions)))
            write(json.dumps(row, ensure_ascii=False))
        if wrong and on_bad == "fail":
            raise DataError(f"{wrong[0].error}.", f"{_HINT} --on-bad skip leaves bad ones empty.")
    return bad


def _windows(lines: BufferedIOBase) -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their numbers from 1: all that have arrived, in windows of limited size."""
    number, rest = itertools.count(1), b""
    while piece := lines.read1(_READ_BYTES):
        *complete, rest = (rest + piece).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            last = next(number) + len(complete)
            raise DataError(f"line {last} is longer than {_MAX_LINE_BYTES} bytes.", _HINT)
        numbered = [(next(number), line) for line in complete]
        for first in range(0, len(numbered), _WINDOW):
            yield numbered[first : first + _WINDOW]
    if rest:
        yield [(next(number), rest)]


def _parse_post(model: Predictor, number: int, line: bytes) -> Sample | _BadPost:
    guid = str(number)
    try:
        record = parse_json(line)
        if not isinstance(record, dict):
            raise DataError("it is no JSON object")
        own = record.get("guid")
        if not isinstance(own, str | int | float | None):
            raise DataError("guid is neither a string nor a number")
        if own is not None:
            str(own).encode()  # raises for lone surrogates
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
        return _BadPost(guid, f"line {number}: {error.message}")
    except ValueError as error:
        return _BadPost(guid, f"line {number}: not JSON of Unicode text ({error})")
