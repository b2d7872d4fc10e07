"""Image-text pairs on disk, in the report's layout.

``DIR/train.txt`` and ``DIR/test*.txt`` hold ``guid,tag`` rows; ``GUID.txt`` and ``GUID.jpg`` lie in
``DIR``, ``DIR/pairs`` or ``DIR/data``. Reading collects every problem before it gives up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError

LABELS = ("positive", "neutral", "negative")
"""Class names; a class's code is its place here (the report's 0, 1, 2)."""
UNLABELLED = "null"
HEADER = "guid,tag"
SPLITS = ("train", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_TEXT_BYTES = 1 << 20
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


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a label file."""

    guid: str
    label: int | None
    line: int


def image_format(head: bytes) -> str | None:
    """Names the format of a picture from its first bytes; None when it is not an allowed one."""
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def label_file(root: Path, split: str) -> Path:
    """Finds the label file of a split (``train.txt``, ``test*.txt``).

    Raises:
        DataError: None or several lie in ``root``.
    """
    if not root.is_dir():
        raise DataError(f"There is no data folder {root}.", "Give an existing one with --data DIR.")
    found = [root / "train.txt"] if split == "train" else sorted(root.glob("test*.txt"))
    found = [path for path in found if path.is_file()]
    if len(found) == 1:
        return found[0]
    wanted = "train.txt" if split == "train" else "test*.txt"
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root} holds several files {wanted}: {names}.", "Keep one of them there.")
    raise DataError(
        f"{root} holds no label file {wanted}.",
        f"Expected a text file that begins with the line '{HEADER}'.",
    )


def read_labels(path: Path, problems: list[str] | None = None) -> list[LabelRow]:
    """Reads a ``guid,tag`` file (UTF-8, with or without BOM, any line ending).

    Args:
        path: The label file.
        problems: Findings are added here; without it they are raised.

    Raises:
        DataError: Every malformed line at once, when ``problems`` is not given.
    """
    found: list[str] = []
    rows: list[LabelRow] = []
    first_line: dict[str, int] = {}
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        lines = [HEADER]
        found.append(f"{path.name}: not UTF-8 at byte {error.start}; save the file as UTF-8")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if not lines or lines[0].strip() != HEADER:
        seen = lines[0] if lines else "an empty file"
        found.append(f"{path.name}:1: expected the header '{HEADER}', received {seen!r}")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        columns = line.split(",")
        if len(columns) != 2:
            found.append(f"{path.name}:{number}: expected 2 columns, received {len(columns)}")
            continue
        guid, tag = columns[0].strip(), columns[1]
        if tag not in (*LABELS, UNLABELLED):
            valid = ", ".join((*LABELS, UNLABELLED))
            found.append(f"{path.name}:{number}: unknown label {tag!r}; valid: {valid}")
            continue
        if not guid or guid.startswith(".") or re.search(r"[/\\\x00]", guid):
            found.append(f"{path.name}:{number}: guid {guid!r} is not a plain file name")
            continue
        if guid in first_line:
            found.append(
                f"{path.name}:{number}: guid {guid} stands already in line {first_line[guid]}"
            )
            continue
        first_line[guid] = number
        rows.append(LabelRow(guid, None if tag == UNLABELLED else LABELS.index(tag), number))
    if not rows and not found:
        found.append(f"{path.name}: no rows after the header")
    if problems is None:
        _raise_if_any(found, path)
    else:
        problems.extend(found)
    return rows


def pairs_folder(root: Path, rows: Sequence[LabelRow]) -> Path:
    """Takes the first of ``DIR/pairs``, ``DIR/data`` and ``DIR`` that holds some of the pairs."""
    for folder in (root / "pairs", root / "data", root):
        if any((folder / f"{row.guid}.txt").is_file() for row in rows[:100]):
            return folder
    raise DataError(
        f"None of the guids in the label file has a text in {root}/pairs, {root}/data or {root}.",
        "Put GUID.txt and GUID.jpg of every row into one of these folders.",
    )


def read_split(
    root: Path,
    split: str,
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
) -> list[Sample]:
    """Reads one split in the order of its label file.

    Texts are read whole; pictures are hashed and their format is checked by content, but they
    are decoded only by stage one.

    Raises:
        DataError: With every problem of the label file and of the pairs at once.
    """
    problems: list[str] = []
    path = label_file(root, split)
    rows = read_labels(path, problems)
    if split == "train":
        problems += [
            f"{path.name}:{row.line}: guid {row.guid} has the label null in the training file"
            for row in rows
            if row.label is None
        ]
    _raise_if_any(problems, path)
    return read_pairs(
        pairs_folder(root, rows),
        rows,
        encoding=encoding,
        encoding_errors=encoding_errors,
        max_chars=max_chars,
    )


def read_pairs(
    folder: Path,
    rows: Sequence[LabelRow],
    *,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    max_chars: int | None = None,
) -> list[Sample]:
    """Reads the pairs of ``rows`` from ``folder``, in that order.

    Raises:
        DataError: With every missing, empty, undecodable or foreign file at once.
    """
    try:
        "".encode(encoding)
    except LookupError as error:
        raise DataError(
            f"Unknown text encoding {encoding!r}.", "Try utf-8 or gb18030 (--encoding)."
        ) from error
    base = folder.resolve()
    names = {entry.name for entry in folder.iterdir()}

    def one(row: LabelRow) -> Sample | str:
        try:
            text = _read_text(base, f"{row.guid}.txt", encoding, encoding_errors)
            image = next((row.guid + s for s in IMAGE_SUFFIXES if row.guid + s in names), None)
            if image is None:
                return f"{row.guid}: no picture {row.guid}.jpg in {folder}"
            data = _read_inside(base, image, MAX_IMAGE_BYTES)
            if image_format(data[:16]) is None:
                kinds = ", ".join(name for name, _ in _SIGNATURES)
                return f"{image}: content is none of {kinds} (begins with {data[:8]!r})"
        except DataError as error:
            return error.message
        text = text[:max_chars]
        return Sample(
            row.guid,
            row.label,
            text,
            base / image,
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            hashlib.sha256(data).hexdigest(),
        )

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, rows))
    problems = [result for result in results if isinstance(result, str)]
    _raise_if_any(problems, folder)
    return [result for result in results if isinstance(result, Sample)]


def single_sample(text: str, image_path: Path) -> Sample:
    """Makes a sample of one text and one picture file, for prediction.

    Raises:
        DataError: The picture is missing or not an allowed format.
    """
    if not image_path.is_file():
        raise DataError(f"There is no picture {image_path}.", "Give an existing file with --image.")
    data = _read_inside(image_path.parent.resolve(), image_path.name, MAX_IMAGE_BYTES)
    if image_format(data[:16]) is None:
        raise DataError(f"{image_path} is not a picture (begins with {data[:8]!r}).")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Sample("pair", None, text, image_path, digest, hashlib.sha256(data).hexdigest())


def _read_inside(base: Path, name: str, limit: int) -> bytes:
    """Reads a file that must really lie in ``base`` (no link leads out) and be of sane size."""
    path = base / name
    try:
        if not path.resolve().is_relative_to(base):
            raise DataError(f"{name}: leads out of the data folder")
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{name}: empty file")
        if size > limit:
            raise DataError(f"{name}: {size} bytes, more than the limit of {limit}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file in {base}") from error
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error


def _read_text(base: Path, name: str, encoding: str, errors: str) -> str:
    data = _read_inside(base, name, MAX_TEXT_BYTES)
    if b"\0" in data and "16" not in encoding and "32" not in encoding:
        raise DataError(f"{name}: holds NUL bytes; is it really {encoding} text?")
    try:
        text = data.decode(encoding, errors).lstrip("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: byte {error.start} is not valid {encoding} "
            "(declare another --encoding, or encoding_errors = 'replace')"
        ) from error
    if not text:
        raise DataError(f"{name}: empty text")
    return text


def _raise_if_any(problems: list[str], where: Path) -> None:
    if problems:
        raise DataError(
            f"{len(problems)} problem(s) in {where}.",
            "Mend the files or take their rows out of the label file; nothing was changed.",
            problems,
        )
