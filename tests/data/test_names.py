"""Names of files in another spelling, and links that lead out."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from mmsa_cache.data.files import FileNames
from mmsa_cache.errors import DataError
from tests.support.reading import read_split


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (90, 20, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_accents_and_capital_endings_match(tmp_path: Path, on_disk: str) -> None:
    """A table written on a Mac, or pictures that came from one."""
    in_table = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    folder = unicodedata.normalize(on_disk, "été")
    (tmp_path / folder).mkdir()
    for name in ("café.JPG", "plain.jpeg", "Größe.jpg"):
        (tmp_path / folder / unicodedata.normalize(on_disk, name)).write_bytes(picture())
    rows = ["guid,text,image,label", "1,a,été/café.jpg,positive", "2,b,été/plain.JPEG,negative"]
    rows += ["3,c,été/Größe.jpg,neutral"]
    table = unicodedata.normalize(in_table, "\n".join(rows))
    (tmp_path / "train.csv").write_text(table, encoding="utf-8")
    paths = [sample.image_path for sample in read_split(tmp_path, "train")]
    assert all(path is not None and path.is_file() for path in paths)


def test_a_name_that_stands_as_it_is_comes_first(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.JPG", "b.JPG", "b.png", "C.JPEG"):
        (tmp_path / name).write_bytes(picture())
    names = FileNames(tmp_path)
    assert names.find_first(["a.jpg"]) == "a.jpg"
    assert names.find_first(["b.jpg", "b.png"]) == "b.png"
    assert names.find_first(["b.jpg"]) == "b.JPG"
    assert names.find_first(["c.jpeg"]) is None  # another guid
    assert names.find_first(["none/b.jpg"]) is None


def test_pairs_of_a_camera_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("guid,tag\nIMG_1,positive\nIMG_2,negative\n")
    for guid, suffix in (("IMG_1", ".JPG"), ("IMG_2", ".Jpeg")):
        (tmp_path / f"{guid}.txt").write_text("a text")
        (tmp_path / f"{guid}{suffix}").write_bytes(picture())
    samples = read_split(tmp_path, "train")
    assert [sample.picture_name for sample in samples] == ["IMG_1.JPG", "IMG_2.Jpeg"]


def test_links_lead_out_where_that_is_allowed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "1..x.jpg").write_bytes(picture())
    (root / "link..x.jpg").symlink_to(outside / "1..x.jpg")
    (root / "folder").symlink_to(outside)
    table = root / "train.csv"
    table.write_text(
        "guid,text,image,label\n1,t,link..x.jpg,neutral\n2,t,folder/1..x.jpg,neutral\n"
    )
    with pytest.raises(DataError) as caught:
        read_split(root, "train")
    assert len(caught.value.problems) == 2
    assert "follow_links = true under [data]" in caught.value.problems[0]
    found = read_split(root, "train", follow_links=True)
    assert [sample.picture_name for sample in found] == ["link..x.jpg", "1..x.jpg"]
    for way in ("../outside/1..x.jpg", "folder/../outside/1..x.jpg"):
        table.write_text(f"guid,text,image,label\n1,t,{way},neutral\n")
        with pytest.raises(DataError) as caught:
            read_split(root, "train", follow_links=True)
        assert caught.value.problems[0].endswith("leads out of the data folder")
