"""Single posts on disk: their text and their picture, read and checked.

Each fault has a reason, so that faults can be counted. Pictures are hashed
and their format is checked by content; they are decoded only by stage one.
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
"""In the place of the hash of a text or a picture: the post has none."""

Identity = tuple[str, str, str]
"""guid, hash of the text, hash of the picture; a hash is empty where there is nothing to use."""
# Content decides what a picture is, never its name: anything else is refused unopened.
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*")),
    # Both kinds of file may name any of their brands first.
    ("AVIF", re.compile(rb".{4}ftyp(.{4}){0,12}?avi[fs]", re.DOTALL)),
    ("HEIF", re.compile(rb".{4}ftyp(.{4}){0,12}?(he[iv][cmsx]|m[is]f1)", re.DOTALL)),
)
_HEAD = 64
"""Bytes that tell a format."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One post."""

    guid: str
    label: int | None
    """Class code, or None where the label file says ``null``."""
    text: str | None
    """Decoded text, stripped and cut to the wanted length; None where it is not at hand."""
    image_path: Path | None
    """None where the picture is not at hand."""
    text_sha256: str
    """Hash of the decoded text (hex), or `ABSENT`."""
    image_sha256: str
    """Hash of the picture's bytes (hex), or `ABSENT`."""
    text_key: bytes | None = None
    """See `files.text_key`."""

    @property
    def picture_name(self) -> str:
        """What messages call its picture."""
        return self.guid if self.image_path is None else picture_name(self.image_path)

    @property
    def identity(self) -> Identity:
        """What changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a text or a picture."""

    reason: str
    """The same few words for every file with this fault."""
    message: str
    """What is wrong, and where."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row whose text or picture, or both, cannot be used."""

    guid: str
    line: int
    faults: tuple[Fault, ...]
    text_sha256: str = ""
    """As of a `Sample`; empty where the text cannot be used."""
    image_sha256: str = ""
    """As of a `Sample`; empty where the picture cannot be read or is of a foreign format."""

    @property
    def identity(self) -> Identity:
        """What changes when the row's files do."""
        return self.guid, self.text_sha256, self.image_sha256

    @property
    def fatal(self) -> bool:
        """Whether it must not be set aside."""
        return any(fault.reason == LEADS_OUT for fault in self.faults)

    @property
    def messages(self) -> list[str]:
        return [fault.message for fault in self.faults]


def image_format(data: bytes) -> str | None:
    """Names the format of a picture's bytes, as Pillow does; None when it is not an allowed one."""
    head = data[:_HEAD]
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def read_valid_picture(base: Path, name: str, *, follow_links: bool = False) -> bytes:
    """Bytes of a picture in ``base``; its content must be of an allowed format."""
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
        DataError: It is not at hand.
    """
    if sample.text is None:
        raise DataError(
            f"{sample.guid}: its text is not at hand; this store was shared without texts.",
            "Give the data folder with --data DIR.",
        )
    return sample.text


def read_sample_picture(sample: Sample) -> bytes:
    """The bytes of a sample's picture: those that were hashed when the data was read.

    Raises:
        DataError: The picture is not at hand, or was removed or changed since.
    """
    if sample.image_path is None:
        raise DataError(
            f"{sample.guid}: its picture is not at hand.", "Give the data folder with --data DIR."
        )
    name = sample.picture_name
    try:
        data = read_picture(sample.image_path, MAX_IMAGE_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read any more ({error})") from error
    if hashlib.sha256(data).hexdigest() != sample.image_sha256:
        raise DataError(f"{name}: was changed after the data was read (run it again)")
    return data
