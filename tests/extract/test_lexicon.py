"""The sentiment lexicon as a text encoder."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from extract.encoders import lexicon
from extract.encoders.lexicon import resolve_lexicon
from extract.encoders.numbers import NumbersEncoder
from extract.inputs.english import english_share, is_word, split_hashtags

KEYS = ("neg", "neu", "pos", "compound")


@pytest.fixture(scope="module")
def encoder() -> NumbersEncoder:
    return resolve_lexicon().load(torch.device("cpu"))


def scores(text: str) -> list[float]:
    found = SentimentIntensityAnalyzer().polarity_scores(text)
    return [found[key] for key in KEYS]


def test_thirteen_numbers_are_scores_and_counts(encoder: NumbersEncoder) -> None:
    text = "RT @you: Not good!! Why? http://t.co/x1 #NotSoHappy #sunset www.a.org/b"
    plain = scores("RT @you: Not good!! Why?   #NotSoHappy #sunset  ")
    cut = scores("RT @you: Not good!! Why? Not So Happy sunset")
    (numbers,) = encoder.prepare([text])
    assert plain != cut
    assert numbers[:7].tolist() == pytest.approx([*plain, cut[0], *cut[2:]], abs=1e-6)
    counts = [2, 1, 2, 2, 1, 7]  # ! ? # links RT words
    assert numbers[7:].tolist() == pytest.approx([math.log1p(n) for n in counts])
    encoded = encoder.encode([numbers, *encoder.prepare(["", "fine"])])
    assert encoded.pooled.shape == (3, 1, 13)
    assert encoded.tokens.shape[0] == 0
    assert encoded.lengths == [0, 0, 0]
    assert encoded.pooled[0, 0].tolist() == numbers.half().tolist()
    assert encoder.size.bytes([]) < 100
    assert encoder.prepare([]) == []


def test_only_the_beginning_of_a_text_is_read(encoder: NumbersEncoder) -> None:
    long = "good but bad " * 100_000
    one, two = encoder.prepare([long, long[:2_000]])
    assert one.tolist() == two.tolist()


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ("#NotSoHappy", "Not So Happy"),
        ("#bestdayever", "best day ever"),
        ("#BLACKLIVESMATTER", "BLACK LIVES MATTER"),
        ("#WeWon2Games at #home", "We Won 2 Games at home"),
        ("#theresistance", "the resistance"),
        ("#sunset #naïve #xqzvk #原宿 #a1", "sunset naïve xqzvk 原宿 a 1"),
        ("no tag # here", "no tag # here"),
    ],
)
def test_hashtags_are_cut_into_the_fewest_words(tags: str, words: str) -> None:
    assert split_hashtags(tags) == words


def test_the_share_of_english_texts() -> None:
    english = ["What a lovely day at the harbour #sunset", "so tired of walking http://t.co/a"]
    other = ["Heute war ein schöner Tag im Park", "Hari ini cuaca sangat cerah", "今天天气很好"]
    assert english_share(english) == 1.0
    assert english_share(other) == 0.0
    assert english_share([*english, *other, "#tag http://t.co/x @you"]) == pytest.approx(0.4)
    assert english_share(["#only", ""]) is None
    assert all(map(is_word, ["the", "dogs", "happier", "didn't", "walked", "stories"]))


def test_the_identity_follows_the_tables_and_the_package() -> None:
    found = resolve_lexicon().identity
    assert (found.name, found.modality, found.random_weights) == ("vader", "text", False)
    changed = {"vaderSentiment": 9.0}
    lexicon._table_hashes.cache_clear()
    with mock.patch.dict(lexicon._analyzer().lexicon, changed):
        other = resolve_lexicon().identity
    lexicon._table_hashes.cache_clear()
    assert [line.split(":")[0] for line in other.changes_since(found)] == ["weights"]
    assert resolve_lexicon().computed_in("float16").identity.changes_since(found) == []
