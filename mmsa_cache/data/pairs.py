"""Single posts: samples, bad rows, and the pictures that they name.

Pictures are hashed and their format is checked by content; only stage one decodes them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.errors import BadFileError, DataError

from .files import LEADS_OUT
from .picture_paths import picture_name, read_picture, read_picture_inside

MAX_IMAGE_BYTES = 64 << 20
ABSENT = bytes(32).hex()
"""Stands for the hash of a text or picture that a post does not have."""

Identity = tuple[str, str, str]
"""guid, hash of the text, hash of the picture; the hash of an unusable half is empty."""
# The content decides on a picture's format, never its name; other formats are refused unopened.
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*")),
    # Files of either format may list any of its brands first.
    ("AVIF", re.compile(rb".{4}ftyp(.{4}){0,12}?avi[fs]", re.DOTALL)),
    ("HEIF", re.compile(rb".{4}ftyp(.{4}){0,12}?(he[iv][cmsx]|m[is]f1)", re.DOTALL)),
)
_HEAD = 64
"""Bytes that decide on a format."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One post."""

    guid: str
    label: int | None
    """Class code; None if unlabelled."""
    text: str | None
    """Decoded text, stripped and cut to the maximum length; None if it is not available."""
    image_path: Path | None
    """None if the picture is not available."""
    text_sha256: str
    """Hash of the decoded text (hex), or `ABSENT`."""
    image_sha256: str
    """Hash of the picture's bytes (hex), or `ABSENT`."""
    text_key: bytes | None = None
    """See `files.text_key`."""

    @property
    def picture_name(self) -> str:
        """Name of its picture in messages."""
        return self.guid if self.image_path is None else picture_name(self.image_path)

    @property
    def identity(self) -> Identity:
        """Changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a text or a picture."""

    reason: str
    """Equal for all faults of this kind, for counting."""
    message: str
    """The fault and the file that has it."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row whose text or picture cannot be used."""

    guid: str
    line: int
    faults: tuple[Fault, ...]
    text_sha256: str = ""
    """As of a `Sample`; empty if the text cannot be used."""
    image_sha256: str = ""
    """As of a `Sample`; empty if the picture cannot be used."""

    @property
    def identity(self) -> Identity:
        """Changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256

    @property
    def fatal(self) -> bool:
        """Whether the row must not be set aside."""
        return any(fault.reason == LEADS_OUT for fault in self.faults)

    @property
    def messages(self) -> list[str]:
        return [fault.message for fault in self.faults]


def image_format(data: bytes) -> str | None:
    """Pillow's name of the format of a picture's bytes; None for formats that are not allowed."""
    head = data[:_HEAD]
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def read_valid_picture(base: Path, name: str, *, follow_links: bool = False) -> bytes:
    """Reads a picture in ``base``.

    Raises:
        BadFileError: It cannot be read, or its content is of a foreign format.
    """
    data = read_picture_inside(base, name, MAX_IMAGE_BYTES, follow_links=follow_links)
    if image_format(data) is None:
        kinds = ", ".join(kind for kind, _ in _SIGNATURES)
        raise BadFileError(
            "foreign format", f"{name}: content is none of {kinds} (begins with {data[:8]!r})"
        )
    return data


def sample_text(sample: Sample) -> str:
    """A sample's text.

    Raises:
        DataError: It is not available.
    """
    if sample.text is None:
        raise DataError(
            f"{sample.guid}: its text is not available; this store was shared without texts.",
            "Give the data folder with --data DIR.",
        )
    return sample.text


def read_sample_picture(sample: Sample) -> bytes:
    """Reads a sample's picture again.

    Raises:
        DataError: It is not available, or was removed or changed since its first reading.
    """
    if sample.image_path is None:
        raise DataError(
            f"{sample.guid}: its picture is not available.", "Give the data folder with --data DIR."
        )
    name = sample.picture_name
    try:
        data = read_picture(sample.image_path, MAX_IMAGE_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read any more ({error})") from error
    if hashlib.sha256(data).hexdigest() != sample.image_sha256:
        raise DataError(f"{name}: was changed after the data was read (run it again)")
    return data
