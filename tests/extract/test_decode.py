"""Pictures of all kinds: damaged EXIF, formats, depths, reductions of large JPEGs."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, TiffImagePlugin

from extract.inputs import decode, metadata
from extract.inputs.decode import (
    Picture,
    PictureLimits,
    fit_square,
    needed_side,
    read_picture,
)
from extract.inputs.rgb import convert_to_rgb
from extract.inputs.strict import Strict
from mmsa_cache.errors import BadFileError
from tests.support.pictures import png

TURN = 0x0112
RNG = np.random.default_rng(5)
SMOOTH = Image.fromarray(RNG.integers(0, 255, (6, 9, 3), dtype=np.uint8)).resize((90, 60))


def saved(image: Image.Image, kind: str, exif: bytes | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({} if exif is None else {"exif": exif}), **options)
    return file.getvalue()


def exif(turn: int = 6) -> bytes:
    """EXIF of a maker's name, which is not where the tag is, and a turn."""
    found = Image.Exif()
    found[0x010F], found[TURN] = "A maker", turn
    return found.tobytes()


def entry(tag: int) -> int:
    """Where a tag's entry begins in `exif`."""
    return exif().index(struct.pack(">H", tag), 14)


def changed(place: int, code: str, value: int) -> bytes:
    whole = bytearray(exif())
    struct.pack_into(code, whole, place, value)
    return bytes(whole)


BROKEN = {
    "a length past the end": (changed(entry(0x010F) + 4, ">I", 5000), 6),
    "a place past the end": (changed(entry(0x010F) + 8, ">I", 1 << 30), 1),
    "a turn of two numbers": (changed(entry(TURN) + 4, ">I", 2), 6),
    "first table past the end": (changed(10, ">I", 1 << 31), 1),
    "cut off": (exif()[:20], 1),
    "of nothing": (exif()[:9], 1),
    "garbage": (b"Exif\0\0" + bytes(range(60, 120)), 1),
}


def close(found: Picture, expected: Image.Image, most: float = 6.0) -> None:
    wanted = np.asarray(expected.convert("RGB")).astype(float)
    assert found.pixels.shape == wanted.shape
    assert found.pixels.dtype == np.uint8
    assert np.abs(found.pixels - wanted).mean() < most


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", BROKEN)
def test_exif_that_cannot_be_read_is_counted(kind: str, case: str) -> None:
    """Before, most of these made a good picture a bad one."""
    content, turn = BROKEN[case]
    found = read_picture(saved(SMOOTH, kind, content), case)
    assert "unreadable EXIF" in found.changes
    upright = read_picture(saved(SMOOTH, kind), case).pixels
    turned = {1: upright, 6: np.rot90(upright, -1)}[turn]
    np.testing.assert_array_equal(found.pixels, turned)


def test_threads_do_not_hear_of_each_others_exif() -> None:
    bad = saved(SMOOTH, "JPEG", BROKEN["cut off"][0])
    good = saved(SMOOTH, "JPEG", exif(1))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: read_picture(data, "x").changes, [bad, good] * 100))
    assert found == [("unreadable EXIF",), ()] * 100


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "TIFF", "PNG"])
def test_every_format_is_turned(kind: str, turn: int) -> None:
    tags = Image.Exif()
    tags[TURN] = turn
    found = read_picture(saved(SMOOTH, kind, tags.tobytes()), "turned")
    with Image.open(io.BytesIO(saved(SMOOTH, "PNG", tags.tobytes()))) as image:
        close(found, ImageOps.exif_transpose(image))
    assert found.changes == (("EXIF rotation",) if turn > 1 else ())


def deep() -> tuple[Image.Image, NDArray[np.uint8]]:
    values = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    return Image.fromarray(values), np.round(values / 257).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_16_bits_are_scaled_and_turned(kind: str) -> None:
    image, expected = deep()
    found = read_picture(saved(image, kind, exif(6)), "deep")
    assert found.changes == ("16 bit", "EXIF rotation")
    np.testing.assert_array_equal(found.pixels[:, :, 1], np.rot90(expected, -1))
    raw = np.asarray(image).astype(">u2").tobytes()
    big = read_picture(tiff(30, 20, (16,), raw, ">"), "big endian")
    np.testing.assert_array_equal(big.pixels[:, :, 2], expected)


def tiff(
    width: int, height: int, bits: tuple[int, ...], body: bytes, order: str = "<", **tags: int
) -> bytes:
    """A TIFF of one strip, or of what further tags (``t322``) say."""
    after = 8 + 2 + 12 * (10 + len(tags)) + 4
    values = {256: width, 257: height, 259: 1, 262: 2 if len(bits) > 1 else 1, 277: len(bits)}
    values |= {273: after + 4 * len(bits), 278: height, 279: len(body), 284: 1}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    rows = {tag: (4, 1, value) for tag, value in values.items()}
    rows[258] = (4, len(bits), after if len(bits) > 1 else bits[0])
    table = b"".join(struct.pack(f"{order}HHII", tag, *rows[tag]) for tag in sorted(rows))
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(rows))
    return mark + table + bytes(4) + struct.pack(f"{order}{len(bits)}I", *bits) + body


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colours_of_16_bits_keep_their_high_byte(kind: str) -> None:
    values = RNG.integers(0, 65535, (10, 12, 3)).astype(np.uint16)
    if kind == "TIFF":
        data = tiff(12, 10, (16, 16, 16), values.astype("<u2").tobytes())
    else:
        data = png(10, 16, 2, values[0, 0].astype(">u2").tobytes())
        values = np.broadcast_to(values[0, 0], (10, 10, 3))
    found = read_picture(data, "deep")
    assert found.changes == ("16 bit",)
    np.testing.assert_array_equal(found.pixels, values >> 8)


def test_few_bits_four_inks_and_several_pages() -> None:
    bits = read_picture(saved(SMOOTH.convert("1"), "TIFF", compression="group4"), "1 bit")
    np.testing.assert_array_equal(bits.pixels, np.asarray(SMOOTH.convert("1").convert("RGB")))
    inks = read_picture(saved(SMOOTH.convert("CMYK"), "TIFF", compression="tiff_lzw"), "inks")
    assert inks.changes == ("CMYK",)
    close(inks, SMOOTH)
    pages = saved(SMOOTH, "TIFF", save_all=True, append_images=[SMOOTH.rotate(90), SMOOTH])
    found = read_picture(pages, "pages")
    assert found.changes == ("several frames",)
    np.testing.assert_array_equal(found.pixels, np.asarray(SMOOTH))
    with pytest.raises(BadFileError, match=r"fractions: cannot .* signed or fractional"):
        read_picture(saved(SMOOTH.convert("F"), "TIFF"), "fractions")


def test_of_a_gif_the_first_frame_is_read() -> None:
    frames = [SMOOTH, SMOOTH.rotate(180)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = read_picture(data, "gif")
    assert found.changes == ("palette", "several frames")
    with Image.open(io.BytesIO(data)) as image:
        first = next(ImageSequence.Iterator(image)).convert("RGB")
    np.testing.assert_array_equal(found.pixels, np.asarray(first))
    behind = read_picture(data[: len(data) - 300], "a second frame that is cut off")
    np.testing.assert_array_equal(behind.pixels, found.pixels)
    with pytest.raises(BadFileError, match="cannot be decoded"):
        read_picture(data[:400], "a first frame that is cut off")


def test_heif_is_read_where_its_package_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    brands = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    metadata._register_heif.cache_clear()
    with pytest.raises(BadFileError, match=r"post\.heic: HEIF .*install 'mmsa\[pictures\]'"):
        read_picture(brands, "post.heic")
    monkeypatch.undo()
    metadata._register_heif.cache_clear()
    pytest.importorskip("pillow_heif")
    with pytest.raises(BadFileError, match="cannot be decoded"):
        read_picture(brands, "post.heic")
    for turn in (1, 6):
        tags = Image.Exif()
        tags[TURN] = turn
        data = saved(SMOOTH, "HEIF", tags.tobytes(), quality=95)
        close(
            read_picture(data, "post.heic"),
            SMOOTH if turn == 1 else SMOOTH.rotate(-90, expand=True),
        )


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("turn", [None, 6])
def test_large_jpegs_are_decoded_at_a_fraction(turn: int | None, progressive: bool) -> None:
    large = SMOOTH.resize((1440, 960), Image.Resampling.BICUBIC)
    data = saved(large, "JPEG", turn and exif(turn), progressive=progressive, quality=95)
    found = read_picture(data, "large", 60)
    assert (found.width, found.height) == (1440, 960)
    assert sorted(found.pixels.shape[:2]) == [120, 180]
    whole = large.rotate(-90, expand=True) if turn else large
    close(found, whole.resize(found.pixels.shape[1::-1], Image.Resampling.BOX), 2)


@pytest.mark.parametrize(("short", "expected"), [
    (960, 120), (959, 240), (480, 120), (477, 239), (240, 120), (239, 239),
])  # fmt: skip
def test_a_fraction_is_never_below_twice_the_need(short: int, expected: int) -> None:
    """Of 1/8, 1/4, 1/2 the smallest that is enough, odd sides rounded up; by both decoders."""
    for size in ((short, short + 1), (short + 1, short)):
        for told in (None, exif(1)):
            found = read_picture(saved(Image.new("L", size), "JPEG", told), "large", 60)
            assert min(found.pixels.shape[:2]) == expected
            assert (found.width, found.height) == size
    assert read_picture(saved(Image.new("L", size), "JPEG"), "large").pixels.shape[1::-1] == size


def test_sizes_are_taken_up_to_their_limits() -> None:
    limits = PictureLimits(max_pixels=1024, min_side=8, max_aspect=4.0)
    for width, height, part in ((32, 32, 1), (16, 32, 2), (8, 32, 1), (32, 8, 1), (8, 8, 16)):
        limits.check(width, height, "x", part)
    for width, height, part, reason, message in (
        (32, 33, 1, "too many pixels", "x: 32×33 pixels, more than the limit of 1024"),
        (16, 33, 2, "too many pixels", "x: 16×33 pixels, more than the limit of 512"),
        (7, 20, 1, "too small", "x: 7×20 pixels, a side is shorter than 8"),
        (20, 7, 1, "too small", "x: 20×7 pixels, a side is shorter than 8"),
        (8, 33, 1, "too narrow", "x: 8×33 pixels, longer than 4 : 1"),
        (33, 8, 1, "too narrow", "x: 33×8 pixels, longer than 4 : 1"),
    ):
        with pytest.raises(BadFileError) as caught:
            limits.check(width, height, "x", part)
        assert (caught.value.reason, caught.value.message) == (reason, message)


def test_formats_that_take_twice_the_memory_may_have_half_the_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "LIMITS", PictureLimits(max_pixels=10_000))
    for kind in ("PNG", "TIFF", "GIF", "BMP", "JPEG"):
        assert read_picture(saved(SMOOTH, kind), kind).width == 90
    for kind in ("AVIF", "WEBP"):
        with pytest.raises(BadFileError, match="90×60 pixels, more than the limit of 5000"):
            read_picture(saved(SMOOTH, kind), kind)


def test_exif_is_read_up_to_a_megabyte() -> None:
    for size, turn in ((1 << 20, 6), ((1 << 20) + 1, None)):
        image = Image.new("RGB", (9, 9))
        image.info["exif"] = exif(6).ljust(size, b"\0")
        assert metadata.read_orientation(image) == turn


def test_tags_of_a_tiff_may_have_many_bytes_but_few_numbers() -> None:
    """Words, profiles and notes are bytes; 65,536 numbers are taken, whatever the picture."""
    own = TiffImagePlugin.ImageFileDirectory_v2()
    own[270], own[700], own.tagtype[700] = "x" * 70_000, bytes(70_000), 1
    options = {"tiffinfo": own, "icc_profile": bytes(70_000)}
    np.testing.assert_array_equal(
        read_picture(saved(SMOOTH, "TIFF", **options), "bytes").pixels, np.asarray(SMOOTH)
    )
    for count, good in ((65_536, True), (65_537, False)):
        own = TiffImagePlugin.ImageFileDirectory_v2()
        own[65_000], own.tagtype[65_000] = tuple(range(3)) * (count // 3 + 1), 3
        own[65_000] = own[65_000][:count]
        data = saved(SMOOTH, "TIFF", tiffinfo=own)
        if good:
            assert read_picture(data, "numbers").width == 90
        else:
            with pytest.raises(BadFileError, match="65000 has 65537 values") as caught:
                read_picture(data, "numbers")
            assert caught.value.reason == "too many pieces"


@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "I")])
def test_a_tile_is_counted_by_both_sides(kind: int, code: str) -> None:
    for side, good in ((4096, True), (4112, False)):
        tags = b"".join(
            struct.pack(">HHI", tag, kind, 1) + struct.pack(f">{code}", value).ljust(4, b"\0")
            for tag, value in ((322, 4096), (323, side))
        )
        data = b"MM\0*" + struct.pack(">IH", 8, 2) + tags + bytes(4)
        if good:
            metadata.check_tiff(data, "x")
        else:
            with pytest.raises(BadFileError, match="tiles of 16842752 pixels") as caught:
                metadata.check_tiff(data, "x")
            assert caught.value.reason == "too many pixels"


SHINING: list[tuple[Callable[[Image.Image], Image.Image], tuple[str, ...]]] = [
    (lambda image: image, ("alpha",)),
    (lambda image: image.convert("LA"), ("alpha",)),
    (lambda image: image.convert("RGB").quantize(8), ("palette",)),
    (lambda image: image.convert("L"), ()),
    (lambda image: image.convert("1"), ()),
]


@pytest.mark.parametrize(
    ("kind", "make", "changes"),
    [
        ("PNG", lambda image: image.quantize(8), ("alpha", "palette")),
        *((kind, *case) for kind in ("PNG", "TIFF") for case in SHINING),
    ],
)
def test_what_shines_through_is_white(
    kind: str, make: Callable[[Image.Image], Image.Image], changes: tuple[str, ...]
) -> None:
    image = SMOOTH.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image = make(image)
    found = read_picture(saved(image, kind), kind)
    assert (found.changes, found.width, found.height) == (changes, *SMOOTH.size)
    layer = image.convert("RGBA")
    wanted = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    np.testing.assert_array_equal(found.pixels, np.asarray(wanted.convert("RGB")))


def test_one_shade_of_a_grey_picture_may_be_clear() -> None:
    """It has no alpha of its own: the file names the shade."""
    image = Image.new("L", (20, 10), 7)
    image.paste(100, (0, 0, 10, 10))
    found = read_picture(saved(image, "PNG", transparency=7), "clear")
    assert found.changes == ("alpha",)
    assert found.pixels[0, :, 0].tolist() == [100] * 10 + [255] * 10


@pytest.mark.parametrize("mode", ["PA", "RGBa"])
def test_pictures_of_rare_modes_are_composed_too(mode: str) -> None:
    image = Image.new("RGBA", (9, 9), (100, 100, 100, 128))
    if mode == "PA":
        image = Image.new("L", (9, 9), 100).convert("P")
        image.putalpha(128)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert np.abs(convert_to_rgb(image, 1).astype(int) - 177).max() <= 1


@pytest.mark.parametrize("crop", [None, 1.0, 0.9, 0.875])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(90, 60), (61, 90), (33, 33)])
def test_squares_are_those_of_pillow(
    crop: float | None, resample: str, size: tuple[int, int]
) -> None:
    """Resized and cut by another library; within two grey values."""
    image, filter_ = SMOOTH.resize(size), Image.Resampling[resample.upper()]
    short = 32 if crop is None else int(32 / crop)
    scale = short / min(size)
    sides = (32, 32) if crop is None else [max(short, round(side * scale)) for side in size]
    left, top = ((side - 32) // 2 for side in sides)
    wanted = image.resize(sides, filter_).crop((left, top, left + 32, top + 32))
    found = fit_square(np.array(image), 32, crop, resample)
    assert (found.shape, found.dtype) == ((3, 32, 32), torch.uint8)
    apart = found.permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted)
    assert np.abs(apart).max() <= 2
    if resample == "bicubic":
        assert (fit_square(np.array(image), 32, crop) == found).all()


def test_what_is_wrong_names_the_file_and_odd_turns_are_none() -> None:
    for told in (None, exif(1)):
        with pytest.raises(BadFileError, match=r"post\.jpg: 8×500 pixels, longer than 50 : 1"):
            read_picture(saved(Image.new("RGB", (8, 500)), "JPEG", told), "post.jpg")
    for turn in (0, 9):
        assert read_picture(saved(SMOOTH, "PNG", exif(turn)), "odd").changes == ()
    assert [needed_side(224, crop) for crop in (None, 1.0, 0.9)] == [224, 224, 248]


def test_of_warnings_those_of_pictures_alone_are_strict() -> None:
    """Others go where they went; the filters stay until the last one has left."""
    heard: list[tuple[object, ...]] = []
    strict = Strict()

    def warn(text: str, file: str, kind: type[Warning] = UserWarning) -> None:
        module = ".".join(PurePath(file).with_suffix("").parts[-2:])
        warnings.warn_explicit(text, kind, file, 7, module)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = mine = lambda *where, **_: heard.append(where[1:4])
        with strict as odd:
            warn("an odd tag", "/lib/PIL/TiffImagePlugin.py")
            assert odd == ["an odd tag"]
            with pytest.raises(UserWarning, match="a bomb"):
                warn("a bomb", "/lib/PIL/Image.py")
            warn("old", "/lib/else/where.py", DeprecationWarning)
            assert heard == [(DeprecationWarning, "/lib/else/where.py", 7)]
            with strict:
                pass
            assert warnings.showwarning == strict._handle
        assert warnings.showwarning is mine
        with strict as odd:
            assert warnings.showwarning == strict._handle
            assert odd == []


def test_plain_jpegs_do_not_go_through_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_open", None)
    for data in (
        saved(SMOOTH, "JPEG"),
        saved(SMOOTH, "JPEG", keep_rgb=True),
        saved(SMOOTH.convert("L"), "JPEG"),
        saved(SMOOTH, "JPEG") + bytes(1 << 16) + exif(6),
    ):
        assert decode.decode(data, "x").shape == (60, 90, 3)
    assert decode.decode(saved(SMOOTH, "JPEG"), "x", 15).shape == (30, 45, 3)
    with pytest.raises(BadFileError):
        read_picture(saved(SMOOTH.convert("CMYK"), "JPEG"), "inks")
