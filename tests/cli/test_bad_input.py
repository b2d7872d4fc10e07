"""The 25 bad inputs of the table (`test_inputs_table`): each harms no other row.

Every case alters a small data folder around the row named ``odd``. A batch holds one row here, so a
row's features are a function of that row alone, and those of the other rows can be compared byte by
byte with the features of the folder without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import ImageFile

from extract.inputs.decode import decode
from mmsa_cache.data.pairs import image_format
from tests.support.data_folders import (
    GOOD,
    features,
    label_file,
    mmsa,
    noise,
    saved,
    sealed,
)
from tests.support.inputs.bad import BAD, FATAL, FINE, dotfiles, stray, windows
from tests.support.inputs.build import Build, Input


@pytest.fixture(scope="module")
def work(tiny_work: Path) -> Path:
    return tiny_work


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_row_can_be_set_aside(work: Path, tmp_path: Path, bad: Input) -> None:
    root = tmp_path / "data"
    bad.build(root)
    (problem,) = bad.problems
    data = ("extract", "--data", str(root), "--cache")
    failed = mmsa(work, *data, str(tmp_path / "failed"), code=3)
    assert problem in failed.stderr
    assert "--on-bad skip" in failed.stderr

    cache = tmp_path / "skipped"
    skipped = mmsa(work, *data, str(cache), "--on-bad", "skip", "--json")
    assert [record["set_aside"] for record in json.loads(skipped.stdout)] == [1, 1]
    assert f"train: 1 of 7 rows set aside (1 {bad.reason}); see" in skipped.stderr
    seen = json.loads(mmsa(work, "check", str(root), "--json", code=3).stdout)
    (whole,) = [found["message"] for found in seen["problems"]]
    assert problem in whole
    assert f"- odd: {whole}" in skipped.stderr
    assert sealed(cache) == sealed(work / "reference")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("fatal", FATAL, ids=lambda fatal: fatal.name)
def test_what_is_fatal_ends_everything(work: Path, tmp_path: Path, fatal: Input) -> None:
    root = tmp_path / "data"
    fatal.build(root)
    arguments = ("--data", str(root), "--cache", str(tmp_path / "cache"), "--on-bad", "skip")
    failed = mmsa(work, "extract", *arguments, code=3)
    assert all(message in failed.stderr for message in fatal.problems)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in left if not path.name.startswith(".stats-")], "hashes at most"


@pytest.mark.parametrize("fine", FINE, ids=lambda fine: fine.name)
def test_what_is_odd_harms_no_other_row(
    work: Path, tmp_path: Path, fine: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fine.variables.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "data"
    fine.build(root)
    cache = tmp_path / "cache"
    mmsa(work, "extract", "--data", str(root), "--cache", str(cache), *fine.flags)
    found = features(cache)
    assert {found.pop((modality, "odd"))[1] != b"" for modality in ("text", "image")} == {True}
    assert found == features(work / "reference")


def test_texts_that_are_long_or_hold_unknown_words_are_counted(work: Path, tmp_path: Path) -> None:
    by_name = {fine.name: fine for fine in FINE}
    tokens = {}
    for name in ("17-truncated", "18"):
        by_name[name].build(tmp_path / name)
        seen = json.loads(mmsa(work, "check", str(tmp_path / name), "--json").stdout)
        tokens[name] = seen["texts"]["tokens"]
    long, unknown = tokens.values()
    assert (long["max_tokens"], long["truncated"], long["lengths"]["max"]) == (16, 1, 22)
    assert unknown["texts_with_unknown"] == 1
    assert 0 < unknown["unknown_share"] < 0.2


@pytest.mark.parametrize(
    ("build", "unlisted"),
    [
        pytest.param(windows, [], id="22"),
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
