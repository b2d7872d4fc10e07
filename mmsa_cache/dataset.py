"""Image-text pairs on disk: from the rows of a data folder to samples.

Which rows there are, in which layout, ``adapters`` says. Reading collects every problem before it
gives up.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .adapters import (
    IMAGE_SUFFIXES,
    LABELS,
    MAX_TEXT_BYTES,
    SPLITS,
    UNLABELLED,
    Intake,
    LabelRow,
    check_encoding,
    decode,
    list_rows,
    raise_problems,
    read_inside,
    read_labels,
    strip_text,
)
from .errors import DataError

__all__ = [
    "LABELS",
    "SPLITS",
    "Intake",
    "LabelRow",
    "Sample",
    "image_format",
    "intake",
    "read_labels",
    "read_pairs",
    "read_picture",
    "read_split",
    "single_sample",
]

MAX_IMAGE_BYTES = 64 << 20

# Content decides what a picture is, never its name: anything else is refused unopened.
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM")),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One post."""

    guid: str
    label: int | None
    """Class code, or None where the label file says ``null``."""
    text: str
    """Decoded text, stripped and cut to the wanted length."""
    image_path: Path
    text_sha256: str
    """Hash of the decoded text (hex)."""
    image_sha256: str
    """Hash of the picture's bytes (hex)."""


def image_format(head: bytes) -> str | None:
    """Names the format of a picture from its first bytes; None when it is not an allowed one."""
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def read_split(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    classes: tuple[str, ...] = LABELS,
) -> list[Sample]:
    """The samples that ``intake`` gives.

    Raises:
        DataError: As ``intake`` does.
    """
    return intake(
        root,
        split,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
        classes=classes,
    )[0]


def intake(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    classes: tuple[str, ...] = LABELS,
) -> tuple[list[Sample], Intake]:
    """Reads one split in the order of its label file (unlabelled pairs: by guid).

    Texts are read whole; pictures are hashed and their format is checked by content, but they
    are decoded only by stage one.

    Args:
        root: The data folder, in any layout of ``adapters``.
        split: ``train`` or ``test``.
        encoding: Of the texts.
        encoding_errors: ``strict`` or ``replace``.
        max_chars: Texts are cut to this many characters.
        classes: Class names; a class's code is its place.

    Returns:
        The samples, and what was kept, merged and dropped.

    Raises:
        DataError: With every problem of the label file and of the pairs at once.
    """
    listing = list_rows(
        root, split, encoding=encoding, encoding_errors=encoding_errors, classes=classes
    )
    where = listing.source if listing.problems else listing.folder
    samples = read_pairs(
        listing.folder,
        listing.rows,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
        table=listing.source.name if listing.layout == "tables" else "",
        problems=listing.problems,
    )
    raise_problems(listing.problems, where)
    count = Counter(sample.label for sample in samples)
    tags: dict[int | None, str] = {**dict(enumerate(classes)), None: UNLABELLED}
    kept = {tag: count[label] for label, tag in tags.items() if count[label]}
    return samples, Intake(listing.layout, split, kept, listing.merged, listing.dropped)


def read_pairs(
    folder: Path,
    rows: Sequence[LabelRow],
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
    table: str = "",
    problems: list[str] | None = None,
) -> list[Sample]:
    """Reads the texts and pictures of ``rows`` from ``folder``, in that order.

    Args:
        folder: Where the pairs lie, or where a table's image paths start.
        rows: What to read.
        encoding: Of the texts.
        encoding_errors: ``strict`` or ``replace``.
        max_chars: Texts are cut to this many characters.
        table: Name of the table that holds the texts, for messages.
        problems: Findings are added here; without it they are raised.

    Raises:
        DataError: Every missing, empty, undecodable or foreign file at once, when ``problems``
            is not given.
    """
    check_encoding(encoding)
    base = folder.resolve()
    names = {entry.name for entry in folder.iterdir()}

    def one(row: LabelRow) -> Sample | str:
        try:
            text = row.text
            if text is None:
                text = _read_text(base, f"{row.guid}.txt", encoding, encoding_errors)
            image = row.image or next(
                (row.guid + s for s in IMAGE_SUFFIXES if row.guid + s in names), None
            )
            if image is None:
                return f"{row.guid}: no picture {row.guid}.jpg in {folder}"
            digest = _picture_sha256(base, image)
        except DataError as error:
            return f"{table}:{row.line}: {error.message}" if table else error.message
        text = text[:max_chars]
        return Sample(
            row.guid,
            row.label,
            text,
            base / image,
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            digest,
        )

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, rows))
    found = [result for result in results if isinstance(result, str)]
    if problems is None:
        raise_problems(found, folder)
    else:
        problems.extend(found)
    return [result for result in results if isinstance(result, Sample)]


def single_sample(text: str | None, image_path: Path | None) -> Sample:
    """Makes a sample of one text and one picture file, for prediction; one may be missing.

    Raises:
        DataError: The picture is missing or not an allowed format, or the text is empty.
    """
    if text is not None and not strip_text(text):
        raise DataError("The text is empty.", "Leave --text out to predict from a picture alone.")
    picture = ""
    if image_path is not None:
        if not image_path.is_file():
            raise DataError(
                f"There is no picture {image_path}.", "Give an existing file with --image."
            )
        picture = _picture_sha256(image_path.parent.resolve(), image_path.name)
    text = strip_text(text or "")
    return Sample(
        "pair", None, text, image_path or Path(), hashlib.sha256(text.encode()).hexdigest(), picture
    )


def read_picture(sample: Sample) -> bytes:
    """The bytes of a sample's picture: those that were hashed when the data was read.

    Raises:
        DataError: They are gone, or others by now.
    """
    name = sample.image_path.name
    data = read_inside(sample.image_path.parent.resolve(), name, MAX_IMAGE_BYTES)
    if hashlib.sha256(data).hexdigest() != sample.image_sha256:
        raise DataError(f"{name}: was changed after the data was read (run it again)")
    return data


def _picture_sha256(base: Path, name: str) -> str:
    """Hash of a picture in ``base``; its content must be of an allowed format."""
    data = read_inside(base, name, MAX_IMAGE_BYTES)
    if image_format(data[:16]) is None:
        kinds = ", ".join(kind for kind, _ in _SIGNATURES)
        raise DataError(f"{name}: content is none of {kinds} (begins with {data[:8]!r})")
    return hashlib.sha256(data).hexdigest()


def _read_text(base: Path, name: str, encoding: str, errors: str) -> str:
    data = read_inside(base, name, MAX_TEXT_BYTES)
    if b"\0" in data and "16" not in encoding and "32" not in encoding:
        raise DataError(f"{name}: holds NUL bytes; is it really {encoding} text?")
    text = strip_text(decode(data, name, encoding, errors))
    if not text:
        raise DataError(f"{name}: empty text")
    return text
