"""Files of a data folder, read without trust."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

from mmsa_cache.errors import BadFileError, DataError
from mmsa_cache.untrusted import read_plain

PICTURE_SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".jfif": "JPEG",
}
"""Endings of pictures' names and the format each promises; of two pictures of one guid, the one
whose ending stands first here is taken."""
IMAGE_SUFFIXES = tuple(PICTURE_SUFFIXES)
MAX_TEXT_BYTES = 1 << 20
MAX_LABEL_BYTES = 1 << 30
LEADS_OUT = "leads out of the data folder"
"""Reason of the one fault of a row that ends everything, whatever is to be done with bad rows."""
EMPTY_TEXT = "empty text"
_NOISE = re.compile(r"https?://\S+|^RT\s+@\w+:?", re.IGNORECASE)


def strip_text(text: str) -> str:
    """A text without BOM and outer white space."""
    return text.lstrip("\ufeff").strip()


def plain_text(text: str) -> str:
    """A text without URLs and a leading ``RT @name``, in lower case: what the post says."""
    return " ".join(_NOISE.sub(" ", text).split()).lower()


def text_key(text: str) -> bytes | None:
    """What texts that say the same have in common, 16 bytes; None where a text says nothing."""
    plain = plain_text(text)  # a text of URLs only says nothing about being the same post
    return hashlib.sha256(plain.encode()).digest()[:16] if plain else None


_NO_TEXTS = ("idna", "punycode")
"""Codecs of host names; they take minutes for a megabyte."""


def check_encoding(encoding: str) -> None:
    """Refuses an unknown encoding; a store or a run may name it.

    Raises:
        DataError: Python knows no such encoding of text files.
    """
    known = False
    with contextlib.suppress(LookupError, ValueError):
        known = "".encode(encoding) is not None and codecs.lookup(encoding).name not in _NO_TEXTS
    if not known:
        raise DataError(
            f"Unknown text encoding {encoding[:80]!r}.", "Try utf-8 or gb18030 (--encoding)."
        )


def decode(data: bytes, name: str, encoding: str, errors: str, numbered: bool = False) -> str:
    """Decodes a file; its name, and if wanted the line, are for the message.

    Raises:
        BadFileError: A byte is not valid.
    """
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{name}:{line}" if numbered else name
        raise BadFileError(
            "bytes not valid in the encoding",
            f"{where}: byte {error.start} is not valid {encoding} "
            "(declare another --encoding, or encoding_errors = 'replace')",
        ) from error


def stat_inside(base: Path, name: str, limit: int) -> os.stat_result:
    """Size and times of a file that must be inside ``base`` and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.

    Raises:
        BadFileError: It is not, or it is no regular file.
    """
    try:
        found = _found_inside(base, name)
    except FileNotFoundError as error:
        raise BadFileError("missing", f"{name}: no such file in {base}") from error
    except OSError as error:
        raise BadFileError("unreadable", f"{name}: {error.strerror}") from error
    except RuntimeError as error:  # Python 3.11 and 3.12: a loop of links
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise BadFileError("unreadable", f"{name}: not a regular file")  # a pipe would block
    if found.st_size > limit:
        raise BadFileError(
            "too large", f"{name}: {found.st_size} bytes, more than the limit of {limit}"
        )
    return found


def _found_inside(base: Path, name: str) -> os.stat_result:
    path, direct = str(base), True
    for step in name.split("/"):
        path = f"{path}/{step}"
        found = os.lstat(path)
        direct = direct and step != ".." and not stat.S_ISLNK(found.st_mode)
    if direct:  # it goes down only, over no link: no need to resolve it
        return found
    if not Path(path).resolve().is_relative_to(base):
        raise BadFileError(LEADS_OUT, f"{name}: {LEADS_OUT}")
    return Path(path).stat()


def read_inside(base: Path, name: str, limit: int, *, allow_empty: bool = False) -> bytes:
    """Reads a file that must be inside ``base`` (links included) and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        allow_empty: A file without a byte will do.

    Raises:
        BadFileError: It does not, or it cannot be read.
    """
    stat_inside(base, name, limit)
    try:
        data = read_plain(base / name, limit)
    except FileNotFoundError as error:
        raise BadFileError("missing", f"{name}: no such file in {base}") from error
    except OSError as error:
        raise BadFileError("unreadable", f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not data and not allow_empty:
        raise BadFileError("empty file", f"{name}: empty file")
    return data


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates (a file name or JSON may hold them)."""
    return not re.search(r"[\ud800-\udfff]", text)
