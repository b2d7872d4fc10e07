"""`FusionClassifier` on arrays: what scikit-learn's checks do not know of."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn import clone, config_context
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fuse.setting import Setting, complete
from fuse.training.final import train
from fuse.training.recipe import Recipe
from mmsa_cache.api.classifier import FusionClassifier
from mmsa_cache.api.modality_input import features_from_input
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.data.splits import outer_split
from mmsa_cache.errors import DataError, DeviceError, SettingsError
from mmsa_cache.features.bank import FeatureBank

ROWS, CLASSES = 60, np.array(["bad", "good"])
SMALL: dict[str, Any] = {"epochs": 3, "text_dim": 8, "image_dim": 8, "head": "", "folds": 2}
SMALL |= {"learning_rate": 0.03, "batch_size": 16, "loss": "ce", "dropout": 0.0}


class Posts:
    """Made-up features of two classes: vectors and sequences of both halves."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.codes = np.arange(ROWS) % 2
        self.y = CLASSES[self.codes]
        signs = (2 * self.codes - 1)[:, None, None]
        self.tokens = [2 * s + rng.standard_normal((2 + n % 3, 5)) for n, s in enumerate(signs)]
        self.patches = rng.standard_normal((ROWS, 4, 3)) - 2 * signs
        self.texts = np.stack([t.mean(0) for t in self.tokens])
        self.pictures = self.patches.mean(1)
        self.joined = np.hstack([self.texts, self.pictures])


@pytest.fixture(scope="module")
def posts() -> Posts:
    return Posts()


def fitted(posts: Posts, **parameters: Any) -> FusionClassifier:
    model = FusionClassifier(**{**SMALL, **parameters})
    return model.fit(posts.texts, posts.pictures, posts.y)


def table(*columns: Any) -> np.ndarray:
    """A table of cells that are any objects."""
    found = np.empty((len(columns[0]), len(columns)), object)
    for place, column in enumerate(columns):
        found[:, place] = list(column)
    return found


def test_it_learns_what_a_run_would_learn_of_the_same_rows(posts: Posts) -> None:
    halves = [
        features_from_input(half.astype(np.float16), name, lambda *_: pytest.fail("posts"))
        for half, name in ((posts.texts, "text"), (posts.pictures, "image"))
    ]
    guids = [str(row) for row in range(ROWS)]
    bank = FeatureBank(*halves, guids, posts.codes.tolist())  # type: ignore[arg-type]
    groups = np.arange(ROWS) // 2
    development, judged = outer_split("grouped", posts.codes, groups, 47)
    setting: Setting = complete({k: v for k, v in SMALL.items() if k != "folds"})
    protocol = Protocol(outer="grouped", folds=3)
    run = train([Recipe.single(setting)], bank, groups, protocol, names=CLASSES.tolist())
    model = FusionClassifier(**{**SMALL, "folds": 3})
    texts, pictures = posts.texts.astype(np.float16), posts.pictures.astype(np.float16)
    model.fit(
        texts[development],
        pictures[development],
        posts.y[development],
        groups=groups[development],
    )
    assert model.setting_ == setting
    found = model.predict_proba(texts[judged], pictures[judged])
    np.testing.assert_array_equal(found, run.probabilities)


def test_all_ways_to_give_vectors_are_one(posts: Posts) -> None:
    want = fitted(posts).predict_proba(posts.texts, posts.pictures)
    lists = posts.texts.tolist(), posts.pictures.tolist()
    for ways in (
        (lists, lists),
        ((posts.joined,), (posts.joined,)),
        ((table(posts.texts, posts.pictures),), (lists)),
        ((list(posts.texts), posts.pictures.astype(np.float32)), (posts.joined,)),
    ):
        model = FusionClassifier(**SMALL, text_features=5).fit(*ways[0], posts.y)
        np.testing.assert_allclose(model.predict_proba(*ways[1]), want, atol=1e-6)
        assert model.score(*ways[1], posts.y) > 0.9


def test_sequences_are_read_by_token_or_as_their_pools(posts: Posts) -> None:
    by_token = FusionClassifier(**SMALL, level="tokens", fusion="attention", heads=2, grid=1)
    by_token.fit(posts.tokens, posts.patches, posts.y)
    assert by_token.score(posts.tokens, posts.patches, posts.y) > 0.9
    mean = fitted(posts).predict_proba(posts.texts, posts.pictures)
    pooled = FusionClassifier(**SMALL).fit(table(posts.tokens, posts.patches), posts.y)
    found = pooled.predict_proba(posts.tokens, posts.patches)
    np.testing.assert_allclose(found, mean, atol=1e-5)
    several = FusionClassifier(**SMALL, text_pool="first+max", image_pool="mean+absent?")
    several.fit(posts.tokens, posts.patches, posts.y)
    assert several.setting_.image_pool == "mean"
    assert several.score(posts.tokens, posts.patches, posts.y) > 0.9


def test_a_half_may_be_absent_of_all_posts_or_of_some(posts: Posts) -> None:
    model = fitted(posts, modality_dropout=0.3)
    alone = model.predict_proba(posts.texts)
    some = [None, float("nan"), *posts.pictures[2:]]
    found = model.predict_proba(posts.texts, some)
    np.testing.assert_allclose(found[:2], alone[:2], atol=1e-6)
    assert model.predict(None, posts.pictures).tolist() == posts.y.tolist()
    for given in ((None, posts.pictures), (posts.joined,)):
        one = FusionClassifier(**SMALL).fit(*given, posts.y)
        assert one.setting_.modality == ("text" if len(given) == 1 else "image")
        assert one.score(*given, posts.y) > 0.9
    text = FusionClassifier(**SMALL, modality="text").fit(posts.texts, object(), posts.y)
    assert text.score(posts.texts, None, posts.y) > 0.9
    with pytest.raises(DataError, match=r"1 post\(s\) have no half that is read: rows 0\."):
        model.predict([None, *posts.texts[1:]], some)


def test_it_works_where_scikit_learn_takes_an_estimator(posts: Posts) -> None:
    model = FusionClassifier(**SMALL, text_features=5)
    assert cross_val_score(model, posts.joined, posts.y, cv=2).min() > 0.9
    groups = np.repeat(np.arange(ROWS // 2), 2)
    X = table(posts.tokens, posts.patches)  # noqa: N806
    with config_context(enable_metadata_routing=True):
        grouped = clone(model).set_fit_request(groups=True)
        scores = cross_val_score(grouped, X, posts.y, cv=GroupKFold(2), params={"groups": groups})
    assert scores.min() > 0.9
    grid = {"alpha": np.array([0.2]), "text_dim": np.array([4, 8]), "fusion": ["gated"]}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {f"fusionclassifier__{key}": of for key, of in grid.items()},
        cv=2,
    )
    best = search.fit(posts.joined, posts.y).best_estimator_[-1]
    assert best.setting_.alpha == 0.2
    assert best.setting_.beta == 0.8
    assert type(best.setting_.text_dim) is int
    shape = cross_val_predict(model, posts.joined, posts.y, cv=2, method="predict_proba").shape
    assert shape == (ROWS, 2)


def test_a_seed_decides_all_and_a_pickle_keeps_it(posts: Posts) -> None:
    one = fitted(posts)
    want = one.predict_proba(posts.texts, posts.pictures)
    for same in (fitted(posts), pickle.loads(pickle.dumps(one))):
        np.testing.assert_array_equal(same.predict_proba(posts.texts, posts.pictures), want)
    state = np.random.RandomState(3)
    for other in (1, state, state, None):
        found = fitted(posts, random_state=other).predict_proba(posts.texts, posts.pictures)
        assert not np.array_equal(found, want)
        want = found


def test_decisions_folds_and_labels_are_as_asked(posts: Posts) -> None:
    model = fitted(posts, decide="macro_f1")
    object.__setattr__(model.model_.calibration, "offsets", (0.0, 50.0))
    assert set(model.predict(posts.texts, posts.pictures)) == {"good"}
    model.set_params(decide="accuracy")
    assert set(model.predict(posts.texts, posts.pictures)) == {*CLASSES}
    codes = np.array([7] * 3 + [5] * (ROWS - 3))
    rare = FusionClassifier(**{**SMALL, "folds": 5}).fit(posts.texts, posts.pictures, codes)
    assert (rare.folds_, rare.classes_.tolist()) == (3, [5, 7])
    assert fitted(posts, folds=1).folds_ == 1
    for more, members in (({}, 2), ({"seeds": 3, "refit": True}, 3), ({"folds": 3}, 3)):
        assert len(fitted(posts, **more).model_.members) == members


def test_numbers_beyond_float16_are_learned_from(posts: Posts) -> None:
    rbf = FusionClassifier(fusion="kernel", loss="ce", optimiser="lbfgs", folds=2)
    far = 1e6 * posts.texts, posts.pictures + 1e5
    assert rbf.fit(*far, posts.y).score(*far, posts.y) > 0.9
    large = FusionClassifier(**SMALL, level="tokens", text_pool="max", grid=1)
    large = large.fit([1e6 * t for t in posts.tokens], 1e9 * posts.patches, posts.y)
    assert np.isfinite(large.predict_proba(None, 1e9 * posts.patches)).all()


@pytest.mark.parametrize(
    ("text", "image", "y", "message"),
    [
        ("texts", "few", None, r"inconsistent numbers of samples: \[60, 9, 60, 60\]"),
        ("texts", "pictures", "one", "y has one class, bad; two or more are expected"),
        ("texts", "pictures", "rare", "The rarest class has 1 independent samples"),
        ("texts", "pictures", "nan", "Input y contains NaN"),
        ("texts", "pictures", "column", "y should be a 1d array"),
        ("nan", "pictures", None, "Input X_text contains NaN"),
        ("texts", "nan tokens", None, r"Input X_image\[3\] contains NaN"),
        ("huge", "pictures", None, "X_text contains infinity or a value too large for dtype"),
        ("sparse", "pictures", None, "Sparse data was passed for X_text"),
        ("ragged", None, None, "X_text has vectors of 4 to 5 features"),
        ("mixed", None, None, "entries of X_text are not all texts or pictures, nor all vectors"),
        ("words", None, None, "X_text has to be encoded, but text_model is not given"),
        ("word", None, None, "X is a single str"),
        ("three", None, None, "X has 3 columns; of posts two are expected, text and picture"),
        (None, None, None, "There is no X_text and no X_image"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    posts: Posts, text: str | None, image: str | None, y: str | None, message: str
) -> None:
    texts, words = posts.texts, ["a day"] * ROWS
    odd = posts.texts.copy()
    odd[3, 1] = np.nan
    given: dict[Any, Any] = {
        None: None,
        "texts": texts,
        "pictures": posts.pictures,
        "few": posts.pictures[:9],
        "nan": odd,
        "nan tokens": [*posts.tokens[:3], odd[3:4], *posts.tokens[4:]],
        "huge": 1e200 * texts,
        "sparse": scipy.sparse.csr_array(texts),
        "ragged": [texts[0, :4], *texts[1:]],
        "mixed": ["a day", *texts[1:]],
        "words": words,
        "word": "a day",
        "three": table(words, words, words),
    }
    labels: dict[Any, Any] = {
        None: posts.y,
        "one": ["bad"] * ROWS,
        "rare": ["bad"] * (ROWS - 1) + ["good"],
        "nan": [np.nan, 1.0] * (ROWS // 2),
        "column": np.eye(2)[posts.codes],
    }
    with pytest.raises((ValueError, TypeError), match=message):
        FusionClassifier(**SMALL).fit(given[text], given[image], labels[y])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"fusion": "gatd", "alpha": -1},
            r"alpha: -1, a number from 0.*\n.*|fusion: .*near: gated",
        ),
        ({"modality": "sound"}, "modality: 'sound', valid: both, text, image"),
        ({"folds": 0, "decide": "f1"}, r"folds: 0, a number from 1.*\n.*decide: 'f1', valid"),
        ({"folds": "2"}, "folds: '2' is str, a whole number is expected"),
        ({"seeds": 0}, "seeds: 0, a number from 1"),
        ({"random_state": -1}, "seed: -1, a number from 0"),
        ({"device": "gpu"}, "device: write auto, cpu, cuda"),
        ({"text_pool": "cls"}, "X_text has no pool 'cls'.*\n.*Valid: mean"),
        ({"fusion": "attention"}, "text_dim must be divisible by heads"),
    ],
)
def test_parameters_are_checked_before_anything_is_read(
    posts: Posts, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        fitted(posts, **{"text_dim": 9, **parameters})
    with pytest.raises(TypeError, match=r"no parameter 'fuson' \(near: fusion\)"):
        FusionClassifier(fuson="gated")


def test_predictions_want_what_was_learned_from(posts: Posts) -> None:
    model = fitted(posts)
    with pytest.raises(DataError, match=r"X_text has vectors of 3 features, 5 are expected\. X_im"):
        model.predict(posts.pictures, posts.texts)
    with pytest.raises(SettingsError, match="text_features=9, but X has 8 columns"):
        FusionClassifier(**SMALL, text_features=9).fit(posts.joined, posts.y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_errors_name_arguments_in_place_of_flags(posts: Posts) -> None:
    with pytest.raises(DeviceError, match="Use device='cpu'"):
        fitted(posts, device="cuda")
