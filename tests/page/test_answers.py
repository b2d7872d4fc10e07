"""A post → what the model says of it, without a server."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mmsa_cache import DataError, SettingsError, load_model
from mmsa_cache.page.answers import Answers
from mmsa_cache.page.guard import Limits
from mmsa_cache.page.nearest import NEAREST, Neighbour, own_pools
from mmsa_cache.page.view import View
from mmsa_cache.runs.folder import RunFolder
from tests.support.small_work import QUICK, call, make_work

TOKENS = ("--set", "level=tokens", "--set", "fusion=attention_concat")
HOSTILE = "<script>alert(1)</script>"
TEXT, PICTURE = "good day sun", "posts/pairs/3.jpg"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("work"), text_model)
    call(folder, "train", "--name", "run", *QUICK, *TOKENS)
    call(folder, "export", "run", "--to", "alone/model")
    return folder


@pytest.fixture(scope="module")
def answers(work: Path) -> Answers:
    with contextlib.chdir(work):
        return Answers(load_model("run"))


def test_a_post_is_answered_as_predict_does(work: Path, answers: Answers) -> None:
    answer = answers.answer(TEXT, work / PICTURE)
    assert answer.probabilities == answers.model.predict(TEXT, work / PICTURE)
    assert answer.tag == max(answer.probabilities, key=lambda name: answer.probabilities[name])
    assert answer.notes == []
    explained, explanation = answers.explain(TEXT, work / PICTURE)
    assert explained == answer
    assert explanation.attention is not None
    assert [word.word for word in explanation.attention.maps] == TEXT.split()


def test_the_nearest_post_is_the_post_itself(work: Path, answers: Answers) -> None:
    pairs = work / "posts/pairs"
    for row in (work / "posts/train.txt").read_text().split()[1:6]:
        guid, label = row.split(",")
        text, picture = (pairs / f"{guid}.txt").read_text(), pairs / f"{guid}.jpg"
        nearest = answers.explain(text, picture)[1].nearest
        found = [post.similarity for post in nearest]
        assert found == sorted(found, reverse=True)
        assert len(nearest) == NEAREST
        assert found[0] == pytest.approx(1, abs=1e-3)
        (own,) = [post for post in nearest if post.guid == guid]
        assert (own.label, own.text, own.image) == (label, text, picture)


def test_a_half_alone_is_compared_alone(work: Path, answers: Answers) -> None:
    answer, explanation = answers.explain((work / "posts/pairs/7.txt").read_text(), None)
    assert explanation.nearest[0].similarity == pytest.approx(1, abs=1e-3)
    assert explanation.attention is None
    assert "needs both" in explanation.attention_note
    assert "whole pairs only" in answer.notes[0]
    _, explanation = answers.explain("  ", work / "posts/pairs/7.jpg")
    assert explanation.nearest[0].guid == "7"


def test_what_is_no_post_is_refused(tmp_path: Path, answers: Answers) -> None:
    with pytest.raises(SettingsError, match="neither a text nor a picture"):
        answers.answer(" ", None)
    (tmp_path / "picture").write_bytes(b"GIF89a no")
    with pytest.raises(DataError, match="cannot be decoded"):
        answers.answer("good", tmp_path / "picture")


def test_a_text_is_cut_as_those_that_were_learned_from(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = answers.model.session
    data = session.settings.data.model_copy(update={"max_chars": 8})
    monkeypatch.setattr(session, "settings", session.settings.model_copy(update={"data": data}))
    long = answers.answer("good day and more", None)
    assert "cut to 8 characters" in long.notes[0]
    assert long.probabilities == answers.answer("good day", None).probabilities


def test_an_export_alone_answers_and_says_what_it_lacks(
    work: Path, answers: Answers, tmp_path: Path
) -> None:
    shutil.copytree(work / "alone/model", tmp_path / "model")
    with contextlib.chdir(tmp_path):
        alone = Answers(load_model("model"))
        answer, explanation = alone.explain(TEXT, work / PICTURE)
        view = View(RunFolder.find("model"), alone.model, Limits(1, 1), "http://x/")
        assert "an export of it has none" in b"".join(view.report()).decode()
        assert "are missing" in view.errors("", "")
        assert "Training posts are missing" in view.page("", answer, explanation)
        hostile = Neighbour(HOSTILE, "positive", HOSTILE, None, 1.0)
        shown = replace(explanation, nearest=[hostile], nearest_note="")
        page = view.page(HOSTILE, answer, shown)
        assert HOSTILE not in page
        assert page.count(f"&lt;script&gt;{HOSTILE[8:-9]}&lt;/script&gt;") == 3
    same = answers.answer(TEXT, work / PICTURE)
    assert answer.probabilities == pytest.approx(same.probabilities)
    assert explanation.nearest == []
    assert explanation.attention is not None


def test_labels_of_other_classes_are_not_shown(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"classes": ["negative", "neutral", "positive"]}
    monkeypatch.setattr(answers.model, "record", answers.model.record.model_copy(update=other))
    explanation = Answers(answers.model).explain(TEXT, None)[1]
    assert explanation.nearest == []
    assert "other classes: positive, neutral, negative" in explanation.nearest_note


def test_pools_of_inner_layers_and_lexicons_are_not_compared() -> None:
    assert own_pools("mean@1+cls+mean+max+min+std+vader.all") == "cls+mean"
    assert own_pools("vader.all+mean@2") == "vader.all"
