"""Augmentation: each operation against what it should do."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from extract.inputs.augment import (
    IMAGE_OPERATIONS,
    POLICY,
    TEXT_OPERATIONS,
    augment_image,
    augment_text,
    variant_rng,
)
from extract.inputs.synonyms import synonyms

TEXT = "What a great day, we are happy at the big house #great @happy http://t.co/house"
IMAGE = np.random.default_rng(0).integers(60, 180, (40, 50, 3)).astype(np.uint8)


class Fixed(random.Random):
    """Draws the given number from every uniform(), whose range must be the given one."""

    def __init__(self, value: float, low: float, high: float) -> None:
        super().__init__(0)
        self.value, self.range = value, (low, high)

    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == self.range
        return self.value


def test_synonyms_are_mutual_and_never_the_word() -> None:
    assert "glad" in synonyms("Happy")
    assert "happy" in synonyms("glad")
    assert "happy" not in synonyms("happy")
    assert synonyms("qqqq") == ()


@pytest.mark.parametrize("seed", range(30))
def test_replacement_changes_one_plain_word(seed: int) -> None:
    old, new = (
        TEXT.split(),
        TEXT_OPERATIONS["synonym_replacement"](TEXT, random.Random(seed)).split(),
    )
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].strip(",") in synonyms(changed[0][0].strip(","))
    assert new[-3:] == old[-3:]


@pytest.mark.parametrize("seed", range(30))
def test_insertion_adds_one_synonym(seed: int) -> None:
    old, new = TEXT.split(), TEXT_OPERATIONS["random_insertion"](TEXT, random.Random(seed)).split()
    assert len(new) == len(old) + 1
    places = [i for i in range(len(new)) if new[:i] + new[i + 1 :] == old]
    known = {s for word in old for s in synonyms(word.strip(","))}
    assert places
    assert new[places[0]] in known


def test_deletion_drops_a_tenth() -> None:
    rng = random.Random(1)
    words = [f"w{i}" for i in range(100)]
    kept = [
        len(TEXT_OPERATIONS["random_deletion"](" ".join(words), rng).split()) for _ in range(200)
    ]
    # 20,000 draws at p = 0.1: five standard deviations are 0.0106
    assert abs(1 - sum(kept) / 20_000 - 0.1) < 0.0106
    assert TEXT_OPERATIONS["random_deletion"]("one", rng) == "one"
    left = [TEXT_OPERATIONS["random_deletion"]("one two", rng) for _ in range(1000)]
    assert set(left) == {"one", "two", "one two"}, "also where both are dropped, one stays"


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_brightness_and_contrast(factor: float) -> None:
    bright = IMAGE_OPERATIONS["brightness"](IMAGE, Fixed(factor, 0.8, 1.2)).astype(float)
    assert np.abs(bright - np.clip(IMAGE * factor, 0, 255)).max() <= 1
    grey = np.floor((IMAGE @ np.array([299, 587, 114]) / 1000).mean() + 0.5)
    contrast = IMAGE_OPERATIONS["contrast"](IMAGE, Fixed(factor, 0.8, 1.2)).astype(float)
    assert np.abs(contrast - np.clip(grey + (IMAGE - grey) * factor, 0, 255)).max() <= 2


def test_autocontrast_and_equalize_use_the_whole_range() -> None:
    for name in ("autocontrast", "equalize"):
        result = IMAGE_OPERATIONS[name](IMAGE, random.Random(0))
        assert result.min(axis=(0, 1)).tolist() == [0, 0, 0]
        assert result.max(axis=(0, 1)).tolist() == [255, 255, 255]


def test_autocontrast_stretches_and_equalize_levels() -> None:
    """Of many dark shades and few bright ones: one keeps their distances, one makes them alike."""
    dark = (np.linspace(0, 1, 4096) ** 3 * 150 + 50).reshape(64, 64).astype(np.uint8)
    picture = np.stack([dark] * 3, 2)
    stretched = IMAGE_OPERATIONS["autocontrast"](picture, random.Random(0)).astype(float)
    assert np.abs(stretched - (picture - 50.0) / 150 * 255).max() <= 1
    levelled = np.sort(IMAGE_OPERATIONS["equalize"](picture, random.Random(0))[..., 0].ravel())
    assert abs(np.median(levelled) - 127.5) < 10 < abs(np.median(stretched) - 127.5)


def test_a_turned_edge_is_smooth() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    turned = IMAGE_OPERATIONS["rotation"](halves, Fixed(10.0, -15, 15))
    assert ((turned > 0) & (turned < 255)).any(axis=(1, 2))[8:56].mean() > 0.9


def test_rotation_moves_a_point_by_the_angle() -> None:
    image = np.zeros((101, 101, 3), np.uint8)
    image[48:53, 83:88] = 255
    turned = IMAGE_OPERATIONS["rotation"](image, Fixed(15.0, -15, 15))[..., 0].astype(float)
    y, x = (np.indices(turned.shape) * turned).sum((1, 2)) / turned.sum()
    angle = np.degrees(np.arctan2(50 - y, x - 50))
    assert angle == pytest.approx(15.0, abs=0.5)


def test_variants_depend_on_their_own_key_only() -> None:
    keys = [(47, f"{i:064x}", v, m) for i in range(20) for v in (1, 2) for m in ("text", "image")]
    forwards = {key: augment_text(TEXT, variant_rng(*key)) for key in keys}
    backwards = {key: augment_text(TEXT, variant_rng(*key)) for key in reversed(keys)}
    assert forwards == backwards
    assert len(set(forwards.values())) > 40
    assert {name for _, name in forwards.values()} == set(TEXT_OPERATIONS)
    names = {augment_image(IMAGE, variant_rng(*key))[1] for key in keys}
    assert names == set(IMAGE_OPERATIONS)
    for key in keys[:10]:
        assert augment_image(IMAGE, variant_rng(*key))[0].shape == IMAGE.shape


def test_copies_that_a_store_has_are_made_again_alike() -> None:
    """They are found by the name of their policy alone: whatever changes one renames the policy."""
    texts = [
        TEXT,
        "happy",
        "(good) 'bad' #sad @glad it's o-k",
        "#sad 12 happy house",
        "(x-ray) well-known qqqq",
    ]
    drawn = [
        augment_text(text, variant_rng(47, f"{key:064x}", variant, "text"))
        for text in texts
        for key in range(20)
        for variant in (1, 2)
    ]
    names = [augment_image(IMAGE, variant_rng(47, f"{k:064x}", 1, "image"))[1] for k in range(20)]
    found = hashlib.sha256(repr((drawn, names)).encode()).hexdigest()
    assert {POLICY: found[:16]} == {"report-v2": "bfda7df7ab08bdc8"}
