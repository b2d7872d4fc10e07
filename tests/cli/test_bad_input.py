"""The 25 bad inputs: each is built, seen by the command line, and harms no other row.

Every case alters a small data folder around the row named ``odd``. A batch holds one row here, so a
row's features are a function of that row alone, and those of the other rows can be compared byte by
byte with the features of the folder without it."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from extract.inputs.decode import decode
from mmsa_cache.data.pairs import image_format
from tests.support.data_folders import (
    GOOD,
    ROWS,
    WORDS,
    features,
    label_file,
    mmsa,
    noise,
    saved,
    sealed,
)
from tests.support.reading import read_split

Build = Callable[[Path], None]


@pytest.fixture(scope="module")
def work(tiny_work: Path) -> Path:
    return tiny_work


def picture(data: bytes, suffix: str = ".jpg") -> Build:
    """Replaces the odd row's picture."""

    def build(root: Path) -> None:
        (root / "pairs/odd.jpg").unlink()
        (root / f"pairs/odd{suffix}").write_bytes(data)

    return build


def text(data: bytes) -> Build:
    """Replaces the odd row's text."""
    return lambda root: (root / "pairs/odd.txt").write_bytes(data) and None


def without(suffix: str) -> Build:
    return lambda root: (root / f"pairs/odd{suffix}").unlink()


def labels(change: Callable[[str], str | bytes]) -> Build:
    """Rewrites the label file."""

    def build(root: Path) -> None:
        content = change((root / "train.txt").read_text())
        data = content if isinstance(content, bytes) else content.encode()
        (root / "train.txt").write_bytes(data)

    return build


def link_out(suffix: str) -> Build:
    def build(root: Path) -> None:
        path = root / f"pairs/odd{suffix}"
        secret = root.parent / f"secret{suffix}"
        shutil.move(path, secret)
        path.symlink_to(secret)

    return build


PNG = saved(noise(1), "PNG")
HUGE = saved(Image.new("1", (8100, 8000)), "PNG")
# The header of a picture of 40,000 × 40,000 pixels that is not there.
CLAIM = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + PNG[24:29]
CLAIMED = PNG[:12] + CLAIM + zlib.crc32(CLAIM).to_bytes(4, "big") + PNG[33:]
FOREIGN = "odd.jpg: content is none of JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF (begins with"


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used: named, and set aside on demand."""

    case: str
    build: Build
    reason: str
    message: str


BAD = [
    Bad("1", picture(saved(noise(9, 300, 200))[:900]), "cannot be decoded", "truncated"),
    Bad("5", picture(saved(noise(9), "PPM")), "foreign format", f"{FOREIGN} b'P6"),
    Bad("5-tga", picture(saved(noise(9), "TGA")), "foreign format", f"{FOREIGN} b'"),
    Bad("6", picture(b""), "empty file", "odd.jpg: empty file"),
    Bad("7", picture(b"<html>gone</html>"), "foreign format", f"{FOREIGN} b'<html>go')"),
    Bad("8", picture(HUGE), "too many pixels", "8100×8000 pixels, more than the limit of 64000000"),
    Bad("8-claimed", picture(CLAIMED), "cannot be decoded", "exceeds limit"),
    Bad("11", picture(saved(noise(9, 1, 1))), "too small", "1×1 pixels, a side is shorter than 8"),
    Bad("11-strip", picture(saved(noise(9, 1, 20_000))), "too small", "1×20000 pixels, a side is"),
    Bad("11-narrow", picture(saved(noise(9, 3000, 9))), "too narrow", "longer than 50 : 1"),
    Bad("12", picture(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "foreign format", f"{FOREIGN} b'%!PS-Ado')"),
    Bad("13", without(".txt"), "missing", "odd.txt: no such file"),
    Bad("14", text(b""), "empty file", "odd.txt: empty file"),
    Bad("14-blank", text(b" \r\n"), "empty text", "allowed with --allow-empty-text"),
    Bad("15-latin-1", text("café".encode("latin-1")), "bytes not valid in the encoding", "byte 3"),
    Bad("15-gbk", text("好".encode("gbk")), "bytes not valid in the encoding", "declare another"),
    Bad("15-utf-16", text("sun".encode("utf-16")), "bytes not valid in the encoding", "byte 0"),
    Bad("16", text(b"sun\0sea"), "NUL bytes", "odd.txt: holds NUL bytes; is it really utf-8 text?"),
    Bad("17", text(b"sea " * (1 << 18) + b"."), "too large", "1048577 bytes, more than the limit"),
    Bad("24", without(".jpg"), "missing", "odd: no picture odd.jpg in"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.case)
def test_a_bad_row_is_named_and_can_be_set_aside(work: Path, tmp_path: Path, bad: Bad) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    bad.build(root)
    seen = json.loads(mmsa(work, "check", str(root), "--json", code=3).stdout)
    (problem,) = seen["problems"]
    assert (problem["guid"], problem["reason"]) == ("odd", bad.reason)
    assert bad.message in problem["message"]
    assert not problem["fatal"]
    assert (seen["bad_rows"], seen["splits"][0]["bad"], seen["splits"][0]["rows"]) == (1, 1, 7)

    data = ("extract", "--data", str(root), "--cache")
    failed = mmsa(work, *data, str(tmp_path / "failed"), code=3)
    assert problem["message"] in failed.stderr
    assert "--on-bad skip" in failed.stderr

    cache = tmp_path / "skipped"
    skipped = mmsa(work, *data, str(cache), "--on-bad", "skip", "--json")
    assert [record["set_aside"] for record in json.loads(skipped.stdout)] == [1, 1]
    assert f"train: 1 of 7 rows set aside (1 {bad.reason}); see" in skipped.stderr
    assert f"- odd: {problem['message']}" in skipped.stderr
    assert sealed(cache) == sealed(work / "reference")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@dataclass(frozen=True)
class Fatal:
    """Something that ends everything, whatever is to be done with bad rows."""

    case: str
    build: Build
    messages: list[str]


OUT = "leads out of the data folder by a link (allowed with follow_links = true under [data])"
FATAL = [
    Fatal(
        "19",
        labels(lambda old: old + "1,neutral\n"),  # the same label again
        ["train.txt:9: guid 1 is already in line 3"],
    ),
    Fatal(
        "20",
        labels(lambda old: f"{old}../x,neutral\n/etc/passwd,neutral\na\0b,neutral\n.x,neutral\n"),
        [
            "train.txt: 4 rows: guids that are not plain file names (line 9: guid '../x' is not a "
            "plain file name; line 10: guid '/etc/passwd' is not a plain file name; line 11: guid "
            r"'a\x00b' is not a plain file name; …)",
        ],
    ),
    Fatal("20-text", link_out(".txt"), [f"odd.txt: {OUT}"]),
    Fatal("20-picture", link_out(".jpg"), [f"odd.jpg: {OUT}"]),
    Fatal(
        "21",
        labels(
            lambda old: (
                old.replace("0,positive", "0,Positive")
                .replace("1,neutral", "1,neutral ")
                .replace("2,negative", "2,sad")
            )
        ),
        [
            "train.txt:4: unknown label 'sad'; valid: positive, neutral, negative, null (or set "
            "[data] classes)"
        ],
    ),
    Fatal(
        "23",
        labels(lambda old: old.removeprefix("guid,tag\n")),
        ["train.txt:1: expected the header 'guid,tag', received '0,positive'"],
    ),
    Fatal(
        "23-columns",
        labels(lambda old: old.replace("1,neutral", "1,neutral,9").replace("2,", "2;")),
        [
            "train.txt: 2 rows: another number of columns than the header (line 3: expected 2 "
            "columns, received 3; line 4: expected 2 columns, received 1)",
        ],
    ),
    Fatal(
        "23-empty",
        labels(lambda old: ""),
        ["train.txt:1: expected the header 'guid,tag', received an empty file"],
    ),
    Fatal("23-rows", labels(lambda old: "guid,tag\n"), ["train.txt: no rows after the header"]),
]


@pytest.mark.parametrize("fatal", FATAL, ids=lambda fatal: fatal.case)
def test_what_is_fatal_ends_everything(work: Path, tmp_path: Path, fatal: Fatal) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    fatal.build(root)
    seen = json.loads(mmsa(work, "check", str(root), "--json", code=3).stdout)
    assert [problem["message"] for problem in seen["problems"]] == fatal.messages
    assert all(problem["fatal"] for problem in seen["problems"])
    arguments = ("--data", str(root), "--cache", str(tmp_path / "cache"), "--on-bad", "skip")
    failed = mmsa(work, "extract", *arguments, code=3)
    assert all(message in failed.stderr for message in fatal.messages)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in left if not path.name.startswith(".stats-")], "hashes at most"


@dataclass(frozen=True)
class Fine:
    """Something odd that is read right and, where that matters, counted."""

    case: str
    build: Build
    flags: tuple[str, ...] = ()
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What `check` says, by part of its record."""
    pixels: Callable[[Any], bool] | None = None
    """What must hold of the odd row's pixels."""
    words: str = WORDS[ROWS.index("odd")]
    """What the odd row's text must be."""


def exif(image: Image.Image, orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return saved(image, exif=tags)


def animation() -> bytes:
    return saved(noise(1), "PNG", save_all=True, append_images=[noise(2)])


def converted(change: str, kind: str = "PNG") -> dict[str, Any]:
    return {"pictures": {"converted": {change: 1}, "formats": formats(kind)}}


def formats(kind: str) -> dict[str, int]:
    return {"JPEG": 7} if kind == "JPEG" else {"JPEG": 6, kind: 1}


ROSE = "\U0001f339 \U0001f469‍\U0001f680 sea"
MODES = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
FINE = [
    Fine(
        "3",
        picture(saved(Image.new("CMYK", (20, 20), (0, 255, 255, 0)))),
        expected=converted("CMYK", "JPEG"),
        pixels=lambda p: p[..., 0].min() > 230 and p[..., 1:].max() < 40,
    ),
    Fine(
        "4",
        picture(saved(Image.fromarray(np.full((20, 20), 32896, np.uint16)), "PNG"), ".png"),
        expected=converted("16 bit"),
        pixels=lambda p: (p == 128).all(),
    ),
    Fine(
        "5-png",
        picture(PNG),
        expected={"pictures": {"named_as_another_format": 1, "converted": {}}},
    ),
    Fine(
        "9",
        picture(exif(noise(9, 40, 20), 6)),
        expected=converted("EXIF rotation", "JPEG"),
        pixels=lambda p: p.shape == (40, 20, 3),
    ),
    Fine(
        "10",
        picture(saved(MODES, "PNG"), ".png"),
        expected=converted("alpha"),
        pixels=lambda p: (p == 255).all(),
    ),
    Fine(
        "10-palette",
        picture(saved(noise(9).quantize(16), "PNG"), ".png"),
        expected=converted("palette"),
    ),
    Fine("10-frames", picture(animation(), ".png"), expected=converted("several frames")),
    Fine("14", text(b""), ("--allow-empty-text",), {"texts": {"empty": 1}}, words=""),
    Fine(
        "15-declared",
        text("好 sea".encode("gbk")),
        ("--encoding", "gb18030"),
        {
            "texts": {
                "valid_as": {"ascii": 6, "utf-8": 6, "gb18030": 7},
                "undecodable_files": 0,
            }
        },
        words="好 sea",
    ),
    Fine(
        "17",
        text(b"sea " * 20),
        expected={"texts": {"characters": {"min": 7, "median": 9, "p95": 10, "max": 79}}},
        words=("sea " * 20).strip(),
    ),
    Fine("18", text(ROSE.encode()), words=ROSE),
]


@pytest.mark.parametrize("fine", FINE, ids=lambda fine: fine.case)
def test_what_is_odd_is_read_right(work: Path, tmp_path: Path, fine: Fine) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    fine.build(root)
    seen = json.loads(mmsa(work, "check", str(root), *fine.flags, "--json").stdout)
    assert (seen["problems"], seen["bad_rows"]) == ([], 0)
    for part, values in fine.expected.items():
        assert {key: seen[part][key] for key in values} == values
    if fine.case == "17":
        tokens = seen["texts"]["tokens"]
        assert (tokens["max_tokens"], tokens["truncated"], tokens["lengths"]["max"]) == (16, 1, 22)
    if fine.case == "18":
        assert seen["texts"]["tokens"]["texts_with_unknown"] == 1
        assert 0 < seen["texts"]["tokens"]["unknown_share"] < 0.2
    encoding = fine.flags[1] if "--encoding" in fine.flags else "utf-8"
    samples = read_split(root, "train", encoding=encoding, allow_empty_text=True)
    odd = next(sample for sample in samples if sample.guid == "odd")
    assert odd.text == fine.words
    if fine.pixels is not None:
        assert fine.pixels(decode(odd.image_path.read_bytes(), "odd"))
    cache = tmp_path / "cache"
    mmsa(work, "extract", "--data", str(root), "--cache", str(cache), *fine.flags)
    found = features(cache)
    assert {found.pop((modality, "odd"))[1] != b"" for modality in ("text", "image")} == {True}
    assert found == features(work / "reference")


def dotfiles(root: Path) -> None:
    (root / "pairs/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "pairs/._0.jpg").write_bytes(b"\0\5\x16\7")
    (root / ".train.txt").write_text("guid,tag\nx,x\n")


def stray(root: Path) -> None:
    (root / "pairs/stray.jpg").write_bytes(b"<html>")
    (root / "pairs/stray.txt").write_text("sea")


@pytest.mark.parametrize(
    ("build", "unlisted"),
    [
        pytest.param(
            labels(lambda old: b"\xef\xbb\xbf" + old.replace("\n", "\r\n").encode()), [], id="22"
        ),
        pytest.param(stray, ["stray.jpg", "stray.txt"], id="24"),
        pytest.param(dotfiles, [], id="25"),
    ],
)
def test_what_changes_nothing(
    work: Path, tmp_path: Path, build: Build, unlisted: list[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "without", root)
    build(root)
    seen = json.loads(mmsa(work, "check", str(root), "--json").stdout)
    assert (seen["problems"], seen["unlisted"]) == ([], unlisted)
    mmsa(work, "extract", "--data", str(root), "--cache", str(tmp_path / "cache"))
    assert sealed(tmp_path / "cache") == sealed(work / "reference")


def test_case_2_a_flipped_bit_is_another_picture(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    cache = ("--cache", str(tmp_path / "cache"))
    mmsa(work, "extract", "--data", str(root), *cache)
    path = root / "pairs/odd.jpg"
    data = bytearray(path.read_bytes())
    before = decode(bytes(data), "odd")
    data[-40] ^= 4
    path.write_bytes(data)
    assert (decode(bytes(data), "odd") != before).any()  # nobody would notice
    mmsa(work, "check", str(root))
    refused = mmsa(work, "train", "--data", str(root), *cache, code=4)
    assert "1 row with another picture: odd" in refused.stderr
    again = mmsa(work, "extract", "--data", str(root), *cache, "--json")
    computed = {r["modality"]: r["rows_computed"] for r in json.loads(again.stdout)}
    assert computed == {"text": 0, "image": 1}  # the texts are what they were
    found = features(tmp_path / "cache")
    for modality in ("text", "image"):
        found.pop((modality, "odd"))
    assert found == features(work / "reference")


@pytest.mark.parametrize("guid", ["é", "e\u0301", "好 日", "a.b"])
def test_case_25_names_are_byte_exact(work: Path, tmp_path: Path, guid: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "without", root)
    (root / "pairs" / f"{guid}.txt").write_text("sun")
    (root / "pairs" / f"{guid}.jpg").write_bytes(saved(noise(3)))
    (root / "train.txt").write_text(label_file([*GOOD, guid]))
    assert json.loads(mmsa(work, "check", str(root), "--json").stdout)["unlisted"] == []
    mmsa(work, "extract", "--data", str(root), "--cache", str(tmp_path / "cache"))
    found = features(tmp_path / "cache")
    for modality in ("text", "image"):
        assert found.pop((modality, guid))
    assert found == features(work / "reference")
    other = {"é": "e\u0301", "e\u0301": "é"}.get(guid)
    if other is not None:  # the other way to write its accents: a Mac's, or all others'
        (root / "train.txt").write_text(label_file([*GOOD, other]))
        seen = json.loads(mmsa(work, "check", str(root), "--json").stdout)
        assert (seen["splits"][0]["rows"], seen["unlisted"]) == (7, [])


def test_everything_wrong_is_told_in_one_pass(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    pairs = root / "pairs"
    (pairs / "0.txt").unlink()
    (pairs / "0.jpg").write_bytes(b"<html>")
    (pairs / "1.jpg").write_bytes(saved(noise(9, 300, 200))[:900])
    (pairs / "2.txt").write_bytes(b"\xb0\xa1")
    (root / "train.txt").write_text(
        label_file(GOOD).replace("1,neutral", "1,meh") + "2,negative\n../x,neutral\n3,neutral,0\n"
    )
    seen = json.loads(mmsa(work, "check", str(root), "--json", code=3).stdout)
    messages = [problem["message"].split(" (")[0] for problem in seen["problems"]]
    assert messages == [
        "train.txt:3: unknown label 'meh'; valid: positive, neutral, negative, null",
        "train.txt:8: guid 2 is already in line 4",
        "train.txt:9: guid '../x' is not a plain file name",
        "train.txt:10: expected 2 columns, received 3",
        f"0.txt: no such file in {pairs.resolve()}",
        "0.jpg: content is none of JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF",
        "1.jpg: cannot be decoded",
        "2.txt: byte 0 is not valid utf-8",
    ]
    assert seen["unlisted"] == ["odd.jpg", "odd.txt"]
    failed = mmsa(work, "extract", "--data", str(root), "--on-bad", "skip", code=3)
    assert "train.txt:3: unknown label 'meh'" in failed.stderr
    shown = mmsa(work, "check", str(root), code=3)
    assert "8 problem(s), 3 bad row(s):" in shown.stdout
    assert "train: 1.jpg: cannot be decoded" in shown.stdout


def test_formats_are_told_by_content() -> None:
    for kind in ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "AVIF"):
        assert image_format(saved(noise(1), kind)) == kind
    brands = b"\0\0\0\x1cftypmif1\0\0\0\0mif1miaf"
    assert image_format(brands + b"avif") == "AVIF"
    assert image_format(brands + b"heic") == "HEIF"
    assert image_format(saved(noise(1), "PPM")) is None
