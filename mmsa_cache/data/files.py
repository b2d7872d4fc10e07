"""Files of a data folder, read without trust."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from encodings.aliases import aliases
from pathlib import Path, PurePath

from mmsa_cache.errors import BadFileError, DataError
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.names import suggest

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
LEADS_OUT = "leads out of the data folder"
"""Reason of the one fault of a row that ends everything, whatever is to be done with bad rows."""
FOLLOW = " by a link (allowed with follow_links = true under [data])"
EMPTY_TEXT = "empty text"
EMPTY_FILE = "empty file"
MISSING = "missing"
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
            f"Unknown text encoding {encoding[:80]!r}{suggest(encoding, {*aliases.values()})}.",
            "Try utf-8 or gb18030 (--encoding).",
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


class FileNames:
    """How the names of files stand on disk, where they are known in another spelling.

    A Mac takes accents apart (NFD), a camera writes ``.JPG``. A name that stands there as it is
    comes first; a folder is looked through once, when the first name is not there.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._others: dict[str, dict[str, str]] = {}

    def first(self, names: Sequence[str]) -> str | None:
        """The first of some names that there is, as it stands on disk; None where none is."""
        found = next((name for name in names if self._there(name)), None)
        return found or next((found for name in names if (found := self._other(name))), None)

    def _there(self, name: str) -> bool:
        return os.path.lexists(f"{self._base}/{name}")

    def _other(self, name: str) -> str | None:
        path = ""
        for step in name.split("/"):
            spelling = _spelling(step)
            found = next((s for s in (step, spelling) if self._there(path + s)), None)
            if found is None:
                if path not in self._others:
                    self._others[path] = _other_spellings(f"{self._base}/{path}")
                found = self._others[path].get(spelling)
            if found is None:
                return None
            path += f"{found}/"
        return path[:-1]


def _spelling(name: str) -> str:
    whole = unicodedata.normalize("NFC", name)
    suffix = PurePath(whole).suffix
    return whole.removesuffix(suffix) + suffix.lower()


def _other_spellings(folder: str) -> dict[str, str]:
    """Names in a folder by their spelling, of those that have another one."""
    try:
        names = sorted(path.name for path in Path(folder).iterdir())
    except (OSError, ValueError):
        return {}
    return {_spelling(name): name for name in reversed(names) if _spelling(name) != name}


def stat_inside(base: Path, name: str, limit: int, *, follow_links: bool = False) -> os.stat_result:
    """Size and times of a file that must be inside ``base`` and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        follow_links: Whether links may lead out of ``base``; steps up never do.

    Raises:
        BadFileError: It is not, or it is no regular file.
    """
    try:
        found = _found_inside(base, name, follow_links)
    except FileNotFoundError as error:
        raise BadFileError(MISSING, f"{name}: no such file in {base}") from error
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


def _found_inside(base: Path, name: str, follow_links: bool) -> os.stat_result:
    path, linked = str(base), False
    steps = name.split("/")
    for step in steps:
        path = f"{path}/{step}"
        found = os.lstat(path)
        linked = linked or stat.S_ISLNK(found.st_mode)
    up = ".." in steps
    if not (linked or up):  # it goes down only, over no link: no need to resolve it
        return found
    if (up or not follow_links) and not Path(path).resolve().is_relative_to(base):
        raise BadFileError(LEADS_OUT, f"{name}: {LEADS_OUT}" + ("" if up else FOLLOW))
    return Path(path).stat()


def read_inside(
    base: Path, name: str, limit: int, *, allow_empty: bool = False, follow_links: bool = False
) -> bytes:
    """Reads a file that must be inside ``base`` (links included) and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        allow_empty: A file without a byte will do.
        follow_links: See `stat_inside`.

    Raises:
        BadFileError: It does not, or it cannot be read.
    """
    stat_inside(base, name, limit, follow_links=follow_links)
    try:
        data = read_regular(base / name, limit)
    except FileNotFoundError as error:
        raise BadFileError(MISSING, f"{name}: no such file in {base}") from error
    except OSError as error:
        raise BadFileError("unreadable", f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not data and not allow_empty:
        raise BadFileError(EMPTY_FILE, f"{name}: empty file")
    return data


def is_unicode(text: str) -> bool:
    """Whether a text is free of lone surrogates (a file name or JSON may hold them)."""
    return text.isascii() or not re.search(r"[\ud800-\udfff]", text)
