"""Label files, pairs, splits, settings, pictures."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from extract.encoders.timm_tower import to_patches
from extract.inputs.decode import decode, fit_square
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.files import text_key
from mmsa_cache.data.layouts.rows import read_labels
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.set_aside import pictures_digest
from mmsa_cache.data.splits import (
    duplicate_groups,
    grouped_folds,
    is_cross_validation,
    outer_split,
    outer_splits,
    report_copies,
    report_split,
)
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.files.hashing import canonical_json, digest
from tests.support.pictures import jpeg
from tests.support.reading import read_split
from tests.support.real_data import REAL, needs_real


def make_data(root: Path, rows: list[tuple[str, str]]) -> Path:
    (root / "pairs").mkdir(parents=True)
    for guid, _ in rows:
        (root / "pairs" / f"{guid}.txt").write_text(f"post {guid}")
        (root / "pairs" / f"{guid}.jpg").write_bytes(jpeg())
    (root / "train.txt").write_text("guid,tag\n" + "".join(f"{g},{t}\n" for g, t in rows))
    return root


def test_reads_pairs_in_file_order(tmp_path: Path) -> None:
    rows = [("9", "negative"), ("é", "positive"), ("10", "neutral")]
    samples = read_split(make_data(tmp_path / "d", rows), "train")
    assert [(s.guid, s.label, s.text) for s in samples] == [
        ("9", 2, "post 9"),
        ("é", 0, "post é"),
        ("10", 1, "post 10"),
    ]


def test_every_label_problem_at_once(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("guid,tag\n1,positive\n2,posit\n1,neutral\n../x,neutral\n3,neutral,0\n")
    with pytest.raises(DataError) as caught:
        read_labels(path)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("train.txt:3: unknown label 'posit'", "is already in line 2"):
        assert part in text
    assert "guid '../x' is not a plain file name" in text
    assert "train.txt:6: expected 2 columns, received 3" in text
    assert caught.value.exit_code == 3


@needs_real
def test_the_reports_numbers_on_the_real_data() -> None:
    train = read_split(REAL, "train", encoding="gb18030")
    labels = np.array([s.label for s in train])
    _, val = report_split(len(train))
    assert np.bincount(labels[val]).tolist() == [467, 83, 250]
    copies = report_copies(labels.tolist())
    assert copies == {0: 0, 1: 4, 2: 1}
    assert sum(copies[int(c)] for c in labels) == 2869


def test_report_copies() -> None:
    assert report_copies([0] * 60 + [1] * 10 + [2] * 30) == {0: 0, 1: 5, 2: 1}
    assert report_copies([0, 0, 1, 1, 2]) == {0: 0, 1: 0, 2: 2}  # of a target of 2


def test_the_reports_split_cuts_four_fifths_off() -> None:
    for rows, training in ((97, 77), (99, 79), (100, 80), (4000, 3200)):
        assert [len(part) for part in report_split(rows)] == [training, rows - training]
    order = torch.randperm(97, generator=torch.Generator().manual_seed(47))
    assert np.concatenate(report_split(97)).tolist() == order.tolist()


def sample(text: str, image: str) -> Sample:
    sha256 = hashlib.sha256(image.encode()).hexdigest()
    return Sample("g", 0, text, None, sha256, sha256, text_key(text))


def test_duplicates_chain_through_text_and_picture() -> None:
    posts = [
        sample("RT @a: so good http://t.co/1", "i0"),
        sample("so good https://t.co/2", "i1"),
        sample("other words", "i1"),
        sample("alone", "i2"),
        sample("https://t.co/3", "i3"),
        sample("http://t.co/4", "i4"),
    ]
    assert duplicate_groups(posts).tolist() == [0, 0, 0, 1, 2, 3]


def test_another_decoder_or_order_is_another_attempt_to_decode() -> None:
    posts = [sample("a", "i0"), sample("b", "i1")]
    found = [pictures_digest(posts, "one"), pictures_digest(posts, "another")]
    found += [pictures_digest(posts[::-1], "one"), pictures_digest(posts[:1], "one")]
    assert len(set(found)) == 4
    assert pictures_digest(iter(posts), "one") == found[0]


def test_equal_values_have_equal_bytes() -> None:
    plain = {"b": 1, "a": [{"d": "é", "c": None}]}
    turned = {"a": [{"c": None, "d": "é"}], "b": 1}
    assert (
        canonical_json(plain) == canonical_json(turned) == b'{"a":[{"c":null,"d":"\\u00e9"}],"b":1}'
    )
    assert digest(plain) == digest(turned) == hashlib.sha256(canonical_json(plain)).hexdigest()
    assert canonical_json([1, 2]) != canonical_json([2, 1])


def test_folds_keep_groups_together_and_cover_everything() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 120, 300)
    labels = groups % 3
    seen: list[int] = []
    for train, val in grouped_folds(labels, groups, 5, 47):
        assert not set(groups[train]) & set(groups[val])
        seen += val.tolist()
    assert sorted(seen) == list(range(300))


@pytest.mark.parametrize("kind", ["report", "grouped"])
def test_outer_rows_have_no_twin_in_development(kind: str) -> None:
    groups = np.random.default_rng(1).integers(0, 100, 200)
    development, outer = outer_split(kind, groups % 3, groups, 47)
    assert not set(groups[development]) & set(groups[outer])
    assert not set(development) & set(outer)


def test_a_part_of_a_cross_validation_is_a_split_of_its_own() -> None:
    groups = np.random.default_rng(1).integers(0, 100, 200)
    labels = groups % 3
    for kind in ("stratified-4", "grouped-4"):
        parts = outer_splits(kind, labels, groups, 47)
        assert sorted(np.concatenate([judged for _, judged in parts])) == list(range(200))
        assert all(sorted(np.concatenate(part)) == list(range(200)) for part in parts)
        for number, part in enumerate(parts, start=1):
            alone = outer_split(f"{kind}/{number}", labels, groups, 47)
            assert [rows.tolist() for rows in alone] == [rows.tolist() for rows in part]
            assert not is_cross_validation(f"{kind}/{number}")
        assert is_cross_validation(kind)
        with pytest.raises(SettingsError, match=f"Name one of them: {kind}/1"):
            outer_split(kind, labels, groups, 47)
        with pytest.raises(SettingsError, match="Unknown outer split"):
            outer_split(f"{kind}/5", labels, groups, 47)
    first = outer_split("grouped-5/1", labels, groups, 47)[1]
    assert outer_split("grouped", labels, groups, 47)[1].tolist() == first.tolist()


def test_settings_precedence_and_paths(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text(
        'seed = 1\n[data]\nroot = "posts"\nencoding = "gb18030"\n[text]\nmax_tokens = 40\n'
    )
    settings = load_settings(
        {"text.max_tokens": 64, "data.encoding": None},
        folder=tmp_path,
        environ={"MMSA_TEXT_MAX_TOKENS": "50", "MMSA_SEED": "9"},
    )
    assert settings.text.max_tokens == 64
    assert settings.seed == 9
    assert settings.data.root == tmp_path / "posts"
    assert settings.data.encoding == "gb18030"


def test_settings_report_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text('[data]\nrot = "x"\n[text]\nmax_tokens = "many"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(folder=tmp_path, environ={"MMSA_COLOUR": "red"})
    assert len(caught.value.problems) == 3
    for part in (
        "data.rot: unknown key (near: root)",
        "text.max_tokens",
        "MMSA_COLOUR",
    ):
        assert part in str(caught.value)


def test_pool_layers_are_distinct_numbers(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text("[text]\npool_layers = [1]\n")
    settings = load_settings(
        folder=tmp_path,
        environ={"MMSA_TEXT_POOL_LAYERS": "[1, 3, 4]", "MMSA_IMAGE_POOL_LAYERS": "[7]"},
    )
    assert settings.text.pool_layers == (1, 3, 4)
    assert settings.image.pool_layers == (7,)
    assert load_settings(folder=tmp_path, environ={}).text.pool_layers == (1,)
    assert Settings().text.pool_layers == Settings().image.pool_layers == "quarters"
    for text, layers in (("quarters", "quarters"), ("[]", ()), ("[1, 3, 4]", (1, 3, 4))):
        environ = {"MMSA_TEXT_POOL_LAYERS": text, "MMSA_IMAGE_POOL_LAYERS": text}
        settings = load_settings(folder=tmp_path, environ=environ)
        assert settings.text.pool_layers == settings.image.pool_layers == layers
    for wrong in ("[1, 1]", "[-1]", "3", '["1"]', "[true]", "[1", "quarter"):
        for name in ("MMSA_TEXT_POOL_LAYERS", "MMSA_IMAGE_POOL_LAYERS"):
            with pytest.raises(SettingsError, match="a list of distinct layer numbers from 0"):
                load_settings(folder=tmp_path, environ={name: wrong})


def test_jpeg_paths_agree_with_pillow() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    ours = decode(buffer.getvalue(), "x").astype(int)
    theirs = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    assert np.abs(ours - theirs).mean() < 1.0


def test_fit_square_crops_the_centre() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 200
    assert (fit_square(image, 64, 1.0)[:, 4:-4, 4:-4] == 200).all()
    squashed = fit_square(image, 60, None)
    assert (squashed[:, :, 5] == 0).all()
    assert (squashed[:, :, 30] == 200).all()


def test_a_smaller_picture_is_smoothed() -> None:
    """Of lines a pixel wide, eight apart, an eighth of the white is left everywhere."""
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::8] = 255
    for crop in (None, 1.0):
        for resample in ("bicubic", "bilinear"):
            inner = fit_square(image, 64, crop, resample)[:, :, 4:-4]
            assert (inner.float() - 255 / 8).abs().max() <= 1


def test_every_layout_becomes_patches() -> None:
    nlc = torch.arange(2 * 6 * 5.0).view(2, 6, 5)
    nhwc = nlc.view(2, 2, 3, 5)
    nchw = nhwc.permute(0, 3, 1, 2)
    for value, layout in ((nlc, None), (nhwc, "NHWC"), (nchw, "NCHW"), (nchw, None), (nhwc, None)):
        torch.testing.assert_close(to_patches(value, 5, layout), nlc)
    with pytest.raises(ModelError, match="Cannot read a feature map"):
        to_patches(torch.zeros(2, 7), 5, None)


@pytest.mark.parametrize(
    ("value", "expected"), [("last", "last"), ("3", 3), (0, 0), ("average:4", "average:4")]
)
def test_layers_are_read_from_files_and_flags(value: object, expected: object) -> None:
    settings = load_settings({"text.layer": value, "image.layer": value}, environ={})
    assert settings.text.layer == settings.image.layer == expected


def test_mistakes_in_layers_and_tokens_are_told_together() -> None:
    flags = {"text.layer": "first", "image.layer": -1, "extract.tokens": "pool:0x2"}
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, environ={})
    shown = "\n".join(caught.value.problems)
    assert "text.layer: write last, a layer's number from 0, or average:K" in shown
    assert "image.layer" in shown
    assert "extract.tokens" in shown
