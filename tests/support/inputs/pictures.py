"""Pictures: names, links, formats, EXIF, bits."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.data_folders import noise
from tests.support.data_folders import saved as encoded

from .build import ROWS, TRAIN, Build, Input, csv, files, jpeg

_TABLE = "text,image,label\ngood day,{},positive\nbad sea,2.jpg,negative\n"
_TWO = {"train": [ROWS[0], ROWS[2]]}


def one(name: str, data: bytes) -> Build:
    """The first of two posts has this picture."""
    return files({"train.csv": _TABLE.format(name), name: data, "2.jpg": jpeg(2)}, 0)


def counted(**what: Any) -> Mapping[str, Mapping[str, Any]]:
    return {"pictures": what}


def broken_exif(turn: int = 1) -> bytes:
    """A good picture whose EXIF states a length that it does not have."""
    entry = struct.pack("<HHII", 0x0112, 3, 1, turn) + struct.pack("<HHII", 0x010F, 2, 9999, 9999)
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entry + b"\0\0\0\0"
    plain = jpeg(0)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def garbage_exif() -> bytes:
    block = b"Exif\0\0" + b"\xff" * 40
    plain = jpeg(0)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def turned_grey() -> bytes:
    """16 bits of grey, to be turned by EXIF."""
    tags = Image.Exif()
    tags[0x0112] = 6
    grey = Image.fromarray(np.full((20, 40), 32896, np.uint16))
    return encoded(grey, "PNG", exif=tags)


def link(target: str, at: str) -> Build:
    """``0.jpg`` is a link to a picture; ``..`` leads out of the data."""

    def build(root: Path) -> None:
        (root / at).parent.mkdir(parents=True, exist_ok=True)
        (root / at).write_bytes(jpeg(0))
        data = root / "data"
        data.mkdir(exist_ok=True)
        (data / "2.jpg").write_bytes(jpeg(2))
        (data / "0.jpg").symlink_to(target)
        (data / "train.csv").write_text(_TABLE.format("0.jpg"))

    return build


def linked_folder(root: Path) -> None:
    """``data/img`` leads to a folder beside."""
    files({"store/0.jpg": jpeg(0), "store/2.jpg": jpeg(2)}, 0)(root)
    content = _TABLE.replace("2.jpg", "img/2.jpg").format("img/0.jpg")
    files({"data/train.csv": content}, 0)(root)
    (root / "data/img").symlink_to(root / "store")


def upper(root: Path) -> None:
    """The report's layout; pictures' endings of several kinds."""
    content: dict[str, str | bytes] = {"train.txt": "guid,tag\n0,positive\n1,neutral\n2,negative\n"}
    for n, (guid, _, text) in enumerate(ROWS):
        content |= {
            f"pairs/{guid}.txt": str(text),
            f"pairs/{guid}{('.JPG', '.jpeg', '.Jpg')[n]}": jpeg(n),
        }
    files(content, 0)(root)


PICTURES = (
    Input(".JPG, .jpeg and .Jpg", upper, TRAIN),
    Input(
        ".jpg in the table, .JPG on the disk",
        files({"train.csv": _TABLE.format("0.jpg"), "0.JPG": jpeg(0), "2.jpg": jpeg(2)}, 0),
        _TWO,
    ),
    Input(
        "composed in the table, decomposed on the disk",
        files(
            {"train.csv": _TABLE.format("\u00e9.jpg"), "e\u0301.jpg": jpeg(0), "2.jpg": jpeg(2)}, 0
        ),
        {"train": [("\u00e9", "positive", "good day"), ROWS[2]]},
    ),
    Input("EXIF of a wrong length", one("0.jpg", broken_exif()), _TWO, seen=counted(readable=2)),
    Input("EXIF that is garbage", one("0.jpg", garbage_exif()), _TWO, seen=counted(readable=2)),
    Input(
        "a GIF",
        one("0.gif", encoded(noise(0), "GIF", save_all=True, append_images=[noise(1)])),
        _TWO,
        seen=counted(formats={"JPEG": 1, "GIF": 1}),
    ),
    Input(
        "a TIFF",
        one("0.tif", encoded(noise(0), "TIFF")),
        _TWO,
        seen=counted(formats={"JPEG": 1, "TIFF": 1}),
    ),
    Input(
        "an AVIF",
        one("0.avif", encoded(noise(0), "AVIF")),
        _TWO,
        seen=counted(formats={"JPEG": 1, "AVIF": 1}),
    ),
    Input(
        "a WebP named .jpg",
        one("0.jpg", encoded(noise(0), "WEBP")),
        _TWO,
        seen=counted(named_as_another_format=1),
    ),
    Input(
        "16 bits of grey, turned",
        one("0.png", turned_grey()),
        _TWO,
        seen=counted(converted={"16 bit": 1, "EXIF rotation": 1}),
    ),
    Input("a link inside", link("more/0.jpg", "data/more/0.jpg"), _TWO, at="data"),
    Input(
        "a link out of the folder",
        link("../0.jpg", "0.jpg"),
        problems=("0.jpg: leads out of the data folder",),
        at="data",
    ),
    Input(
        "a link out, followed",
        link("../0.jpg", "0.jpg"),
        _TWO,
        at="data",
        keys={"follow_links": "true"},
    ),
    Input("a linked folder", linked_folder, problems=("leads out", "leads out"), at="data"),
    Input(
        "a linked folder, followed", linked_folder, _TWO, at="data", keys={"follow_links": "true"}
    ),
    Input(
        "a folder whose name ends in !",
        files({"train.csv": _TABLE.format("x!/0.jpg"), "x!/0.jpg": jpeg(0), "2.jpg": jpeg(2)}, 0),
        _TWO,
    ),
    Input(
        "HTML named .jpg, in a table",
        csv("text,image,label", "good day,gone.jpg,positive", "bad sea,2.jpg,negative"),
        problems=("gone.jpg",),
        reason="missing",
    ),
)
