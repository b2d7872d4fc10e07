"""Encoders of rules, the sentiment lexicon and n-grams, from the posts to a prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsa_cache.compose.extraction.lexicon import add_rule_encoders
from mmsa_cache.config.loading import load_settings
from mmsa_cache.errors import SettingsError
from tests.support.data_folders import mmsa
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

FLAGS = ("epochs=2", "text_dim=8", "image_dim=8", "head=", "learning_rate=0.01", "variants=true")
SETS = [part for flag in FLAGS for part in ("--set", flag)]
TRAIN = ("train", "--folds", "1", "--outer", "grouped", *SETS)
TEXT = "a good day #sobad"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("lexicon")
    make_pairs(folder / "posts", 72)
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t"))
    return folder


@pytest.fixture(scope="module")
def extracted(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MMSA_TEXT_LEXICON")
        return mmsa(folder, "extract", "--split", "all").output


def test_english_posts_get_it_by_default(extracted: str, folder: Path) -> None:
    assert "100% of the texts look English: the sentiment lexicon vader" in extracted
    assert "train text · vader" in extracted
    assert "train text · ngrams" in extracted
    again = mmsa(folder, "extract", "--split", "all", "--lexicon", "auto").output
    assert again.count("nothing to do") == 8
    assert mmsa(folder, "extract", "--lexicon", "none").output.count("nothing to do") == 2
    assert "vader" in mmsa(folder, "cache", "ls").stdout
    shown = json.loads(mmsa(folder, "cache", "show", "1", "--json").stdout)
    (found,) = [cache for cache in shown["caches"] if cache["encoder"] == "vader"]
    assert found["rows"][0]["positions"] == 0
    assert set(found["rows"][0]["pool_norms"]) == {"all"}
    assert (
        "100% look English: the sentiment lexicon vader suits them" in mmsa(folder, "check").stdout
    )


def test_posts_of_another_language_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for guid in range(72):
        (folder / f"andere/pairs/{guid}.txt").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"andere/pairs/{guid}.txt").write_text(f"Heute war ein schöner Tag {guid}")
    for name in [*(folder / "posts").glob("*.txt"), *(folder / "posts/pairs").glob("*.jpg")]:
        (folder / "andere" / name.relative_to(folder / "posts")).write_bytes(name.read_bytes())
    flags = ("--data", "andere", "--cache", "other")
    said = mmsa(folder, "extract", *flags, "--lexicon", "auto").output
    assert "0% of the texts look English: no sentiment lexicon is extracted" in said
    stored = mmsa(folder, "cache", "ls", "--cache", "other").stdout
    assert ("vader" in stored, "ngrams" in stored) == (False, True)
    assert "vader does not suit them" in mmsa(folder, "check", "andere").stdout
    train = (*TRAIN, *flags)
    mmsa(folder, *train, "--name", "plain", "--set", "text_pool=mean+vader.all?")
    config = json.loads((folder / "runs/plain/config.json").read_text())
    assert config["setting"]["text_pool"] == "mean"
    assert "vader" not in config["encoders"]["text"]
    said = mmsa(folder, *train, "--set", "text_pool=vader.all", code=4).output
    assert "mmsa extract --encoders vader" in said
    settings = load_settings({"text.lexicon": "vader"}, folder=folder)
    assert add_rule_encoders(["wide"], settings, None, []) == ["wide"]  # type: ignore[arg-type]
    both = add_rule_encoders(["default"], settings, None, [])  # type: ignore[arg-type]
    assert both == ["default", "ngrams", "vader"]


def test_a_model_reads_it_beside_another_encoder(
    extracted: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    pools = ("--set", "text_pool=mean+max?+vader.all?", "--set", "beside=true")
    mmsa(folder, *TRAIN, *pools, "--name", "both")
    config = json.loads((folder / "runs/both/config.json").read_text())
    assert config["setting"]["text_pool"] == "mean+max+vader.all"
    assert config["models"][0]["dims"]["vectors"] == {
        "text_mean": 16,
        "text_max": 16,
        "text_vader:all": 13,
        "image_mean": config["models"][0]["dims"]["image"],
    }
    assert set(config["encoder_fields"]["text"]) == {"default", "vader"}
    assert config["encoders"]["text"].endswith(", vader")
    rows = json.loads(mmsa(folder, "predict", "--run", "both", "--split", "test", "--json").stdout)
    guid = rows[0]["guid"]
    post = ("--text", (folder / f"posts/pairs/{guid}.txt").read_text())
    post += ("--image", str(folder / f"posts/pairs/{guid}.jpg"))
    one = json.loads(mmsa(folder, "predict", "--run", "both", *post, "--json").stdout)[0]
    assert one["probabilities"] == pytest.approx(rows[0]["probabilities"], abs=2e-3)
    said = mmsa(folder, "export", "both", "--to", "exported", "--format", "onnx").output
    assert "largest difference" in said
    again = json.loads(mmsa(folder, "predict", "--run", "exported", *post, "--json").stdout)[0]
    assert again == one
    half = mmsa(folder, "predict", "--run", "exported", *post[2:], "--json").stdout
    assert sum(json.loads(half)[0]["probabilities"].values()) == pytest.approx(1)
    page = (folder / "runs/both/report.html").read_text(encoding="utf-8")
    assert ", vader" in page


def test_a_further_encoder_that_is_not_there(
    extracted: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = mmsa(folder, *TRAIN, "--set", "text_pool=mean+veder.all", code=2).output
    assert "no text encoder 'veder'" in said
    assert "Known: default, vader, ngrams" in said
    said = mmsa(folder, *TRAIN, "--set", "text_pool=mean+vader.mean", code=2).output
    assert "has no pool 'mean'" in said
    assert "Valid: all" in said
    mmsa(folder, *TRAIN, "--set", "text_pool=mean+vader.all", "--name", "lost")
    config = folder / "runs/lost/config.json"
    content = json.loads(config.read_text())
    content["encoder_fields"]["text"]["vader"]["definition"] = 0
    config.write_text(json.dumps(content))
    said = mmsa(folder, "predict", "--run", "lost", "--text", TEXT, code=4).output
    assert "The text encoder here is not the one that the model was trained on" in said
    assert "definition" in said


def test_it_can_be_the_text_encoder_itself(extracted: str, folder: Path) -> None:
    flags = ("--text-model", "vader", "--text-weights", "pretrained", "--cache", "alone")
    mmsa(folder, "extract", *flags)
    mmsa(folder, *TRAIN, *flags, "--name", "alone", "--set", "text_pool=all")
    config = json.loads((folder / "runs/alone/config.json").read_text())
    assert config["encoders"]["text"] == "vader"
    predicted = mmsa(folder, "predict", "--run", "alone", "--text", TEXT, "--json").stdout
    assert sum(json.loads(predicted)[0]["probabilities"].values()) == pytest.approx(1)


def test_the_key_belongs_to_the_section_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text('[encoders.a.text]\nlexicon = "none"\n')
    with pytest.raises(SettingsError) as error:
        load_settings(folder=tmp_path, environ={})
    assert "it stands in the section [text] without a name" in str(error.value.problems)
