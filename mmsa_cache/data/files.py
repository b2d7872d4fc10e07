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
"""Suffix of a picture's name → its format; of two pictures of one guid, the one whose suffix comes
first here is used."""
IMAGE_SUFFIXES = tuple(PICTURE_SUFFIXES)
MAX_TEXT_BYTES = 1 << 20
LEADS_OUT = "leads out of the data folder"
"""Reason of the only fault of a row that is fatal even where bad rows are set aside."""
FOLLOW_HINT = " by a link (allowed with follow_links = true under [data])"
EMPTY_TEXT = "empty text"
EMPTY_FILE = "empty file"
MISSING = "missing"
_NOISE = re.compile(r"https?://\S+|^RT\s+@\w+:?", re.IGNORECASE)


def strip_text(text: str) -> str:
    """Removes byte order marks and surrounding white space."""
    return text.lstrip("\ufeff").strip()


def plain_text(text: str) -> str:
    """A text without URLs and a leading ``RT @name``, in lower case with single spaces."""
    return " ".join(_NOISE.sub(" ", text).split()).lower()


def text_key(text: str) -> bytes | None:
    """Hash of `plain_text`, 16 bytes, to find repeated posts; None if only URLs are left."""
    plain = plain_text(text)
    return hashlib.sha256(plain.encode()).digest()[:16] if plain else None


_NO_TEXTS = ("idna", "punycode")
"""Codecs of host names, which take minutes for a megabyte."""


def check_encoding(encoding: str) -> None:
    """Checks that Python has an encoding; its name may come from a store or a run.

    Raises:
        DataError: It is unknown, or not for text files.
    """
    usable = False
    with contextlib.suppress(LookupError, ValueError):
        usable = "".encode(encoding) is not None and codecs.lookup(encoding).name not in _NO_TEXTS
    if not usable:
        raise DataError(
            f"Unknown text encoding {encoding[:80]!r}{suggest(encoding, {*aliases.values()})}.",
            "Try utf-8 or gb18030 (--encoding).",
        )


def decode(data: bytes, name: str, encoding: str, errors: str) -> str:
    """Decodes the content of a file called ``name``.

    Raises:
        BadFileError: A byte is not valid.
    """
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise BadFileError(
            "bytes not valid in the encoding",
            f"{name}: byte {error.start} is not valid {encoding} "
            "(declare another --encoding, or encoding_errors = 'replace')",
        ) from error


class FileNames:
    """Finds files whose names may be spelled differently on disk.

    macOS decomposes accents (NFD), cameras write ``.JPG``. Exact names come first; a folder is
    listed once, when the first name is missing.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._others: dict[str, dict[str, str]] = {}

    def find_first(self, names: Sequence[str]) -> str | None:
        """The first of some names that exists, as spelled on disk; None if none does."""
        match = next((name for name in names if self._exists(name)), None)
        return match or next((match for name in names if (match := self._respelled(name))), None)

    def _exists(self, name: str) -> bool:
        return os.path.lexists(f"{self._base}/{name}")

    def _respelled(self, name: str) -> str | None:
        path = ""
        for step in name.split("/"):
            spelling = _spelling(step)
            match = next((s for s in (step, spelling) if self._exists(path + s)), None)
            if match is None:
                if path not in self._others:
                    self._others[path] = _other_spellings(f"{self._base}/{path}")
                match = self._others[path].get(spelling)
            if match is None:
                return None
            path += f"{match}/"
        return path[:-1]


def _spelling(name: str) -> str:
    normalized = unicodedata.normalize("NFC", name)
    suffix = PurePath(normalized).suffix
    return normalized.removesuffix(suffix) + suffix.lower()


def _other_spellings(folder: str) -> dict[str, str]:
    """Normalized spelling → name on disk, of a folder's names that are spelled differently."""
    try:
        names = sorted(path.name for path in Path(folder).iterdir())
    except (OSError, ValueError):
        return {}
    return {_spelling(name): name for name in reversed(names) if _spelling(name) != name}


def stat_inside(base: Path, name: str, limit: int, *, follow_links: bool = False) -> os.stat_result:
    """``stat`` of a file that must be inside ``base`` and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        follow_links: Whether links may lead out of ``base``; ``..`` never may.

    Raises:
        BadFileError: The file is missing, outside, too large or not a regular file or folder.
    """
    try:
        status = _stat_checked(base, name, follow_links)
    except FileNotFoundError as error:
        raise BadFileError(MISSING, f"{name}: no such file in {base}") from error
    except OSError as error:
        raise BadFileError("unreadable", f"{name}: {error.strerror}") from error
    except RuntimeError as error:  # Python 3.11 and 3.12: a loop of links
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise BadFileError("unreadable", f"{name}: not a regular file")  # a pipe would block
    if status.st_size > limit:
        raise BadFileError(
            "too large", f"{name}: {status.st_size} bytes, more than the limit of {limit}"
        )
    return status


def _stat_checked(base: Path, name: str, follow_links: bool) -> os.stat_result:
    path, linked = str(base), False
    steps = name.split("/")
    for step in steps:
        path = f"{path}/{step}"
        status = os.lstat(path)
        linked = linked or stat.S_ISLNK(status.st_mode)
    up = ".." in steps
    if not (linked or up):  # neither links nor "..": no need to resolve it
        return status
    if (up or not follow_links) and not Path(path).resolve().is_relative_to(base):
        raise BadFileError(LEADS_OUT, f"{name}: {LEADS_OUT}" + ("" if up else FOLLOW_HINT))
    return Path(path).stat()


def read_inside(
    base: Path, name: str, limit: int, *, allow_empty: bool = False, follow_links: bool = False
) -> bytes:
    """Reads a file that must be inside ``base`` and within a size limit.

    Args:
        base: A resolved folder.
        name: Path of the file, relative to ``base``.
        limit: Most bytes.
        allow_empty: Whether the file may be empty.
        follow_links: See `stat_inside`.

    Raises:
        BadFileError: As `stat_inside` raises, or the file cannot be read or is empty.
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
    """Whether a text is free of lone surrogates, which file names and JSON may hold."""
    return text.isascii() or not re.search(r"[\ud800-\udfff]", text)
