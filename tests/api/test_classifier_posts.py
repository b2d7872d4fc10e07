"""`FusionClassifier` of texts and pictures, which frozen encoders encode once."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_score

from mmsa_cache import FusionClassifier
from mmsa_cache.api import frozen_encoder
from mmsa_cache.errors import DataError, ModelError, SettingsError

ROWS = 16
ROOT = Path(__file__).parents[2]
PARAMETERS: dict[str, Any] = {
    "text_model": "vader",
    "text_pool": "all",
    "image_model": {
        "model": "vit_tiny_patch16_224",
        "weights": "random",
        "size": 32,
        "kwargs": {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 1},
    },
    **{"fusion": "kernel", "kernel": "linear", "loss": "ce", "optimiser": "lbfgs", "folds": 2},
}


class Posts:
    """Happy posts have bright pictures."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(1)
        self.y = np.arange(ROWS) % 2
        self.texts = [f"{('an awful', 'a happy')[y]} day, number {n}" for n, y in enumerate(self.y)]
        self.pictures = [
            Image.fromarray((rng.integers(0, 90, (24, 32, 3)) + 150 * y).astype(np.uint8))
            for y in self.y
        ]
        self.paths = [folder / f"{number}.png" for number in range(ROWS)]
        for picture, path in zip(self.pictures, self.paths, strict=True):
            picture.save(path)


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Posts:
    return Posts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(posts: Posts) -> FusionClassifier:
    return FusionClassifier(**PARAMETERS).fit(posts.texts, posts.paths, posts.y)


def table(*columns: Sequence[Any]) -> np.ndarray:
    found = np.empty((len(columns[0]), len(columns)), object)
    for place, column in enumerate(columns):
        found[:, place] = list(column)
    return found


def test_posts_are_learned_from_and_pictures_are_the_same_open_or_not(
    posts: Posts, model: FusionClassifier
) -> None:
    want = model.predict_proba(posts.texts, posts.paths)
    model = pickle.loads(pickle.dumps(model))
    assert model.score(posts.texts, posts.paths, posts.y) == 1
    for pictures in (posts.pictures, [str(path) for path in posts.paths]):
        np.testing.assert_array_equal(model.predict_proba(posts.texts, pictures), want)
    np.testing.assert_array_equal(model.predict_proba(table(posts.texts, posts.paths)), want)
    pairs = list(zip(posts.texts, posts.pictures, strict=True))
    np.testing.assert_array_equal(model.predict_proba(pairs), want)
    assert model.score(posts.texts, None, posts.y) == 1
    some = [*posts.texts[:2], " ", None], [*posts.paths[:3], posts.pictures[3]]
    assert model.predict(*some).tolist() == [0, 1, 0, 1]


def test_each_text_and_picture_is_encoded_once(
    posts: Posts, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_encoder._loaded.cache_clear()
    encoded: list[int] = []
    encode = frozen_encoder.encode_rows
    monkeypatch.setattr(
        frozen_encoder,
        "encode_rows",
        lambda rows, *more: encoded.append(len(rows)) or encode(rows, *more),
    )
    model, X = FusionClassifier(**PARAMETERS), table(posts.texts, posts.pictures)  # noqa: N806
    assert cross_val_score(model, X, posts.y, cv=3).min() == 1
    assert cross_val_score(model, table(posts.texts, posts.paths), posts.y, cv=2).min() == 1
    assert sum(encoded) == 3 * ROWS  # files are told from pictures that are open
    monkeypatch.setattr(frozen_encoder, "_MOST_BYTES", 1)
    model.fit(X, posts.y)
    assert sum(encoded) == 5 * ROWS


def test_what_cannot_be_read_is_named_all_at_once(
    posts: Posts, model: FusionClassifier, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("a text")
    picture = posts.pictures[0]
    bad: list[tuple[Any, str]] = [
        ("nil.png", "row 0: There is no picture nil.png."),
        (tmp_path / "text.png", "row 1: text.png: content is none of JPEG"),
        ("http://host/a.png", "row 2: There is no picture http"),
        (picture.convert("F"), "row 3: the picture: grey of signed or fractional numbers"),
        (picture.resize((4, 4)), "row 4: the picture: 4×4 pixels, a side is shorter than 8"),
        (Image.new("1", (9000, 9000)), "row 5: the picture: 9000×9000 pixels, more than the limit"),
    ]
    with pytest.raises(DataError, match="6 of 7 entries of X_image cannot be read") as found:
        model.predict(posts.texts[:7], [*(entry for entry, _ in bad), picture])
    for problem, (_, expected) in zip(found.value.problems, bad, strict=True):
        assert problem.startswith(expected)
    with pytest.raises(DataError, match="X has rows of 1 to 2 cells"):
        model.predict([("a day", picture), ("a day",)])
    with pytest.raises(DataError, match=r"row 0: a text is expected, received a Image"):
        model.predict(posts.pictures[:1], posts.paths[:1])
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"):
        converted = picture.convert("L").convert("I") if mode == "I;16" else picture
        assert model.predict(posts.texts[:1], [converted.convert(mode)]).tolist() == [0]


def test_encoders_are_named_as_in_the_settings(posts: Posts) -> None:
    for model, kind, message in (
        ({"modell": "vader"}, SettingsError, r"text\.modell: unknown key \(near: model\)"),
        ("no/such", ModelError, "no/such.* is neither a folder nor"),
    ):
        with pytest.raises(kind, match=message):
            FusionClassifier(text_model=model).fit(posts.texts, None, posts.y)
    seen = FusionClassifier(**PARAMETERS).fit(None, posts.paths, posts.y)
    seen.set_params(image_model={**PARAMETERS["image_model"], "fit": "squash"})
    with pytest.raises(ModelError, match=r"image encoder here is not the one.*trained on") as found:
        seen.predict(None, posts.paths)
    assert found.value.problems
    with pytest.raises(SettingsError, match="X_text has no pool 'mean'"):
        FusionClassifier(text_model="vader").fit(posts.texts, None, posts.y)


def block_of(page: str, start: str) -> str:
    """The Python of a page that begins with some lines."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    found: str = next(block for block in blocks if block.startswith(start))
    return found


def test_the_blocks_of_the_guides_run_as_they_stand(
    posts: Posts, capsys: pytest.CaptureFixture[str]
) -> None:
    start = "from mmsa_cache import FusionClassifier\n"
    block = block_of("fuse/README.md", start)
    block = block.replace('"deit_tiny_patch16_224"', repr(PARAMETERS["image_model"]))
    block = block.replace('"all-MiniLM-L6-v2"', '"vader", text_pool="all"')
    exec(block, {"texts": posts.texts, "pictures": posts.paths, "labels": posts.y})
    assert "{'alpha': 0." in capsys.readouterr().out
    X = np.random.default_rng(0).standard_normal((ROWS, 400))  # noqa: N806
    exec(block_of("README.md", start), {"X": X, "y": posts.y})
    assert capsys.readouterr().out.startswith("[")
