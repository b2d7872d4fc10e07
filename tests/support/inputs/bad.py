"""The inputs of the reliability table, by its numbers: the row ``odd`` of a folder is altered."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.data_folders import ROWS as GUIDS
from tests.support.data_folders import TAGS, WORDS, make_data, noise, saved

from .build import Build, Input, Row


def around(build: Build) -> Build:
    """Alters a folder of good rows."""

    def whole(root: Path) -> None:
        make_data(root, GUIDS)
        build(root)

    return whole


def picture(data: bytes, suffix: str = ".jpg") -> Build:
    """Replaces the odd row's picture."""

    def build(root: Path) -> None:
        (root / "pairs/odd.jpg").unlink()
        (root / f"pairs/odd{suffix}").write_bytes(data)

    return around(build)


def text(data: bytes) -> Build:
    """Replaces the odd row's text."""
    return around(lambda root: (root / "pairs/odd.txt").write_bytes(data) and None)


def without(suffix: str) -> Build:
    return around(lambda root: (root / f"pairs/odd{suffix}").unlink())


def relabelled(change: Callable[[str], str | bytes]) -> Build:
    """Rewrites the label file of a folder that is there."""

    def build(root: Path) -> None:
        content = change((root / "train.txt").read_text())
        data = content if isinstance(content, bytes) else content.encode()
        (root / "train.txt").write_bytes(data)

    return build


def labels(change: Callable[[str], str | bytes]) -> Build:
    """A folder with another label file."""
    return around(relabelled(change))


def link_out(suffix: str) -> Build:
    def build(root: Path) -> None:
        path = root / f"pairs/odd{suffix}"
        secret = root.parent / f"secret{suffix}"
        shutil.move(path, secret)
        path.symlink_to(secret)

    return around(build)


PNG = saved(noise(1), "PNG")
HUGE = saved(Image.new("1", (8100, 8000)), "PNG")
# The header of a picture of 40,000 × 40,000 pixels that is not there.
CLAIM = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + PNG[24:29]
CLAIMED = PNG[:12] + CLAIM + zlib.crc32(CLAIM).to_bytes(4, "big") + PNG[33:]
FOREIGN = "odd.jpg: content is none of JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF (begins with"


def bad(number: str, build: Build, reason: str, message: str) -> Input:
    """The odd row cannot be used: it is named, and set aside on demand."""
    return Input(number, build, problems=(message,), reason=reason)


BAD = (
    bad("1", picture(saved(noise(9, 300, 200))[:900]), "cannot be decoded", "truncated"),
    bad("5", picture(saved(noise(9), "PPM")), "foreign format", f"{FOREIGN} b'P6"),
    bad("5-tga", picture(saved(noise(9), "TGA")), "foreign format", f"{FOREIGN} b'"),
    bad("6", picture(b""), "empty file", "odd.jpg: empty file"),
    bad("7", picture(b"<html>gone</html>"), "foreign format", f"{FOREIGN} b'<html>go')"),
    bad("8", picture(HUGE), "too many pixels", "8100×8000 pixels, more than the limit of 64000000"),
    bad("8-claimed", picture(CLAIMED), "cannot be decoded", "exceeds limit"),
    bad("11", picture(saved(noise(9, 1, 1))), "too small", "1×1 pixels, a side is shorter than 8"),
    bad("11-strip", picture(saved(noise(9, 1, 20_000))), "too small", "1×20000 pixels, a side is"),
    bad("11-narrow", picture(saved(noise(9, 3000, 9))), "too narrow", "longer than 50 : 1"),
    bad("12", picture(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "foreign format", f"{FOREIGN} b'%!PS-Ado')"),
    bad("13", without(".txt"), "missing", "odd.txt: no such file"),
    bad("14", text(b""), "empty file", "odd.txt: empty file"),
    bad("14-blank", text(b" \r\n"), "empty text", "--allow-empty-text"),
    bad("15-latin-1", text("café".encode("latin-1")), "bytes not valid in the encoding", "byte 3"),
    bad("15-gbk", text("好".encode("gbk")), "bytes not valid in the encoding", "declare another"),
    bad("15-utf-16", text("sun".encode("utf-16")), "bytes not valid in the encoding", "byte 0"),
    bad("16", text(b"sun\0sea"), "NUL bytes", "odd.txt: holds NUL bytes; is it really utf-8 text?"),
    bad("17", text(b"sea " * (1 << 18) + b"."), "too large", "1048577 bytes, more than the limit"),
    bad("24", without(".jpg"), "missing", "odd: no picture odd.jpg in"),
)

OUT = "leads out of the data folder by a link (allowed with follow_links = true under [data])"


def fatal(number: str, build: Build, *messages: str) -> Input:
    """Ends everything, whatever is to be done with bad rows."""
    return Input(number, build, problems=messages)


FATAL = (
    fatal(
        "19",
        labels(lambda old: old + "1,neutral\n"),  # the same label again
        "train.txt:9: guid 1 is already in line 3",
    ),
    fatal(
        "20",
        labels(lambda old: f"{old}../x,neutral\n/etc/passwd,neutral\na\0b,neutral\n.x,neutral\n"),
        "train.txt: 4 rows: guids that are not plain file names (line 9: guid '../x' is not a "
        "plain file name; line 10: guid '/etc/passwd' is not a plain file name; line 11: guid "
        r"'a\x00b' is not a plain file name; …)",
    ),
    fatal("20-text", link_out(".txt"), f"odd.txt: {OUT}"),
    fatal("20-picture", link_out(".jpg"), f"odd.jpg: {OUT}"),
    fatal(
        "21",
        labels(
            lambda old: (
                old.replace("0,positive", "0,Positive")
                .replace("1,neutral", "1,neutral ")
                .replace("2,negative", "2,sad")
            )
        ),
        "train.txt:4: unknown label 'sad'; valid: positive, neutral, negative, null (or set [data] "
        "classes)",
    ),
    fatal(
        "23",
        labels(lambda old: old.removeprefix("guid,tag\n")),
        "train.txt:1: expected the header 'guid,tag', received '0,positive'",
    ),
    fatal(
        "23-columns",
        labels(lambda old: old.replace("1,neutral", "1,neutral,9").replace("2,", "2;")),
        "train.txt: 2 rows: another number of columns than the header (line 3: expected 2 "
        "columns, received 3; line 4: expected 2 columns, received 1)",
    ),
    fatal(
        "23-empty",
        labels(lambda old: ""),
        "train.txt:1: expected the header 'guid,tag', received an empty file",
    ),
    fatal("23-rows", labels(lambda old: "guid,tag\n"), "train.txt: no rows after the header"),
)


def whole(odd: str = WORDS[GUIDS.index("odd")]) -> dict[str, list[Row]]:
    """All rows, the odd one with a text."""
    words = dict(zip(GUIDS, WORDS, strict=True)) | {"odd": odd}
    return {"train": [(g, TAGS[n % 3], words[g] or None) for n, g in enumerate(GUIDS)]}


def fine(number: str, build: Build, words: str | None = None, **more: Any) -> Input:
    """Something odd that is read right and, where that matters, counted."""
    return Input(number, build, whole() if words is None else whole(words), **more)


def exif(image: Image.Image, orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return saved(image, exif=tags)


def animation() -> bytes:
    return saved(noise(1), "PNG", save_all=True, append_images=[noise(2)])


def converted(change: str, kind: str = "PNG") -> dict[str, Any]:
    formats = {"JPEG": 7} if kind == "JPEG" else {"JPEG": 6, kind: 1}
    return {"pictures": {"converted": {change: 1}, "formats": formats}}


windows = relabelled(lambda old: b"\xef\xbb\xbf" + old.replace("\n", "\r\n").encode())
"""CRLF and a byte order mark."""


def dotfiles(root: Path) -> None:
    (root / "pairs/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "pairs/._0.jpg").write_bytes(b"\0\5\x16\7")
    (root / ".train.txt").write_text("guid,tag\nx,x\n")


def stray(root: Path) -> None:
    (root / "pairs/stray.jpg").write_bytes(b"<html>")
    (root / "pairs/stray.txt").write_text("sea")


def extra_columns(root: Path) -> None:
    lines = (root / "train.txt").read_text().splitlines()
    lines = [f"{line},{'likes' if n == 0 else n}" for n, line in enumerate(lines)]
    (root / "train.txt").write_text("\n".join(lines))


ROSE = "\U0001f339 \U0001f469‍\U0001f680 sea"
CLEAR = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
_VALID = {"valid_as": {"ascii": 6, "utf-8": 6, "gb18030": 7}, "undecodable_files": 0}
FINE = (
    fine(
        "3",
        picture(saved(Image.new("CMYK", (20, 20), (0, 255, 255, 0)))),
        seen=converted("CMYK", "JPEG"),
        pixels=lambda p: p[..., 0].min() > 230 and p[..., 1:].max() < 40,
    ),
    fine(
        "4",
        picture(saved(Image.fromarray(np.full((20, 20), 32896, np.uint16)), "PNG"), ".png"),
        seen=converted("16 bit"),
        pixels=lambda p: (p == 128).all(),
    ),
    fine(
        "5-png",
        picture(PNG),
        seen={"pictures": {"named_as_another_format": 1, "converted": {}}},
    ),
    fine(
        "9",
        picture(exif(noise(9, 40, 20), 6)),
        seen=converted("EXIF rotation", "JPEG"),
        pixels=lambda p: p.shape == (40, 20, 3),
    ),
    fine(
        "10",
        picture(saved(CLEAR, "PNG"), ".png"),
        seen=converted("alpha"),
        pixels=lambda p: (p == 255).all(),
    ),
    fine(
        "10-palette",
        picture(saved(noise(9).quantize(16), "PNG"), ".png"),
        seen=converted("palette"),
    ),
    fine("10-frames", picture(animation(), ".png"), seen=converted("several frames")),
    fine(
        "14-allowed",
        text(b""),
        "",
        keys={"allow_empty_text": "true"},
        seen={"texts": {"empty": 1}},
    ),
    fine(
        "15-declared",
        text("好 sea".encode("gbk")),
        "好 sea",
        flags=("--encoding", "gb18030"),
        seen={"texts": _VALID},
    ),
    fine(
        "17-truncated",
        text(b"sea " * 20),
        ("sea " * 20).strip(),
        seen={"texts": {"characters": {"min": 7, "median": 9, "p95": 10, "max": 79}}},
    ),
    fine("18", text(ROSE.encode()), ROSE),
    fine(
        "21-case",
        labels(
            lambda old: old.replace("0,positive", "0,Positive").replace("1,neutral", "1,neutral ")
        ),
        notes=("'Positive' as positive",),
    ),
    fine("22", around(windows)),
    fine("23-extra", around(extra_columns), notes=("likes",)),
    fine("24-stray", around(stray)),
    fine("25", around(dotfiles)),
)
