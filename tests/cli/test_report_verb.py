"""``mmsa report``, the attention in it, rows with duplicates in training; on tiny encoders."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from fuse.evidence.attention_maps import attention_map, attention_setting, average_words
from fuse.figures.metrics import probability_score
from mmsa_cache import load_model
from mmsa_cache.cli.main import app
from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.compose.report.model_attention import attention_explainer
from mmsa_cache.compose.report.rivals import command_for, is_rival, other_differences
from mmsa_cache.data.splits import learned_rows
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.record import RunRecord
from tests.support import made_up_run
from tests.support.pages import cells

SMALL = ("--folds", "2", "--set", "epochs=2", "--set", "text_dim=16", "--set", "image_dim=16")
SMALL += ("--set", "head=8", "--set", "heads=2", "--set", "layers=2", "--set", "ffn=16")
TOKENS = ("--set", "level=tokens", "--set", "fusion=attention_concat", "--set", "grid=4")
TWINS = {3: 90, 5: 91, 7: 122, 9: 123}
"""Posts with the same text: two pairs inside train, two across train and test."""


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def here(work: Path) -> Any:
    """The working folder with features, a run of either loss, and one of every row."""
    pairs = work / "posts" / "pairs"
    for one, two in TWINS.items():
        text = (pairs / f"{one}.txt").read_text()
        (pairs / f"{two}.txt").write_text(f"RT @someone: {text} http://t.co/{two}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        call("extract", "--split", "all")
        call("train", "--name", "acb", "--outer", "report-parity", *SMALL, *TOKENS)
        ce = ("--set", "loss=ce", "--set", "alpha=0.5")
        call("train", "--name", "ce", "--outer", "report-parity", *SMALL, *TOKENS, *ce)
        every = ("--set", "fusion=encoder", "--set", "level=tokens", "--set", "offsets=none")
        call("train", "--name", "every", "--outer", "stratified-2", *SMALL, *every)
        yield work


def page(name: str) -> str:
    return Path("runs", name, "report.html").read_text("utf-8")


def test_a_trained_run_shows_its_attention_and_the_loss_before_it(here: Path) -> None:
    assert "No run here differs from this one (acb)" in page("acb")
    assert "differs from this one in nothing but the loss: ce here, acb there" in page("ce")
    assert page("ce").count("Attention of the word") > 16
    assert "Attention of its words over 4×4 patches" in page("ce")
    assert "mean over 2 members and their heads, as" in page("ce")
    assert "mean over 2 members and their heads and layers" in page("every")
    assert "Attention of its words over 8×8 patches" in page("every")


def test_report_finds_the_run_with_the_other_loss_and_writes_the_same_twice(here: Path) -> None:
    record = json.loads(call("report", "acb", "--json").stdout)
    assert record["against"] == "ce"
    assert record["bytes"] == len(page("acb").encode())
    assert "acb here, ce there" in page("acb")
    before = page("acb")
    call("report", "acb")
    assert page("acb") == before
    assert "runs/every" not in call("report", "every").stdout.split()[0]
    asked = json.loads(
        call("report", "acb", "--against", "every", "--out", "x.html", "--json").stdout
    )
    assert asked["report"] == "x.html"
    text = Path("x.html").read_text("utf-8")
    assert "The two differ in more than the loss (outer, " in text
    assert page("acb") == before


def test_wrong_runs_have_their_exit_codes(here: Path) -> None:
    assert (
        "cannot be compared with itself" in call("report", "acb", "--against", "acb", code=2).output
    )
    assert "There is no run 'nil'" in call("report", "nil", code=4).output
    assert "There is no run 'nil'" in call("report", "acb", "--against", "nil", code=4).output
    shutil.copytree("runs/acb", "runs/broken")
    Path("runs/broken/predictions.csv").write_text("x")
    assert "is malformed" in call("report", "broken", code=4).output
    shutil.rmtree("runs/broken")


def test_without_data_model_or_cache_the_page_says_what_it_lacks(here: Path) -> None:
    out = ("--out", "lacking.html", "--force")
    said = call("report", "acb", "--data", "nowhere", *out).output
    assert "the posts are not at hand" not in said, "the store has their texts"
    text = Path("lacking.html").read_text()
    assert "The pictures are not at hand, so no attention is shown." in text
    shown = re.findall('<p class="guid"><bdi>(.+?)</bdi>', text)[0]
    assert Path(f"posts/pairs/{shown}.txt").read_text() in text
    Path("cache").rename("elsewhere")
    try:
        said = call("report", "acb", "--data", "nowhere", *out).output
        assert "the posts are not at hand" in said
        text = Path("lacking.html").read_text()
        assert "The pictures are not at hand, so no attention is shown." in text
        assert Path(f"posts/pairs/{shown}.txt").read_text() not in text
        call("report", "acb", *out)
    finally:
        assert not Path("cache").exists()
        Path("elsewhere").rename("cache")
    assert Path("lacking.html").read_text().count("Attention of the word") > 16
    Path("runs/acb/model.safetensors").rename("model")
    try:
        said = call("report", "acb", *out).output
    finally:
        Path("model").rename("runs/acb/model.safetensors")
    assert "cannot be loaded" in said
    text = Path("lacking.html").read_text()
    assert "The model could not be loaded" in text
    assert "Picture of post" in text


# --- several runs --------------------------------------------------------------------------------


def test_several_runs_are_compared_on_one_page(here: Path) -> None:
    found = json.loads(call("report", "acb", "runs/ce", "--json").stdout)
    assert found["runs"] == ["acb", "ce"]
    assert found["report"] == "runs/comparison.html"
    html = Path("runs/comparison.html").read_text("utf-8")
    assert found["bytes"] == len(html.encode()) < 1_000_000
    predictions = RunFolder(Path("runs/acb")).predictions
    assert found["rows"] == len(predictions.guids)
    settings = {row[0]: row[1:] for row in cells(html, "settings")}
    del settings["Setting"]
    assert settings == {"loss": ["acb", "ce"], "alpha": ["0.25", "0.5"], "beta": ["0.75", "0.5"]}
    metrics = json.loads(Path("runs/acb/metrics.json").read_text())
    assert cells(html, "figures")[1][:2] == ["Accuracy", f"{metrics['outer']['accuracy']:.3f}"]
    shown = call("report", "acb", "ce").stdout
    assert "acb, ce" in shown
    assert "runs/comparison.html" in shown


def test_tables_are_written_as_csv_and_replaced_with_force_only(here: Path) -> None:
    found = json.loads(call("report", "acb", "--csv", "tables", "--json").stdout)
    files = {Path(path).stem: Path(path) for path in found["csv"]}
    assert {"results-figures", "results-classes", "confusion-figures", "epochs"} <= files.keys()
    assert {"bins", "members", "recall-figures"} <= files.keys()
    metrics = json.loads(Path("runs/acb/metrics.json").read_text())
    rows = [*csv.reader(files["results-figures"].read_text().splitlines())]
    assert rows[0] == ["Figure", "Value", "95% interval, low", "95% interval, high"]
    assert float(rows[1][1]) == metrics["outer"]["accuracy"]
    epochs = [*csv.DictReader(files["epochs"].read_text().splitlines())]
    losses = [of.loss for of in RunFolder(Path("runs/acb")).history if of.epoch == 1]
    assert float(epochs[0]["Training loss"]) == pytest.approx(np.mean(losses))
    assert float(epochs[0]["Training loss, range, high"]) == max(losses)
    before = Path("runs/acb/report.html").stat().st_mtime_ns
    assert "exists already" in call("report", "acb", "--csv", "tables", code=2).output
    assert Path("runs/acb/report.html").stat().st_mtime_ns == before
    call("report", "acb", "--csv", "tables", "--force")
    found = json.loads(call("report", "acb", "ce", "--csv", "both", "--json").stdout)
    assert {Path(path).name for path in found["csv"]} == {p.name for p in Path("both").iterdir()}


def test_runs_that_cannot_be_compared_are_named(here: Path) -> None:
    said = call("report", "acb", "ce", "every", code=4).output
    assert "These runs were not judged on the rows of acb:" in said
    assert "  - every: 120 rows, " in said
    assert "  - ce" not in said
    assert "mmsa compare acb ce every" in said
    assert "A run is named twice." in call("report", "acb", "runs/acb", code=2).output
    call("export", "acb", "--to", "out")
    for names in (["out"], ["acb", "out"], ["acb", "--against", "out"]):
        said = call("report", *names, code=4).output
        assert "out is an export: it has no predictions of rows that judge." in said
    said = call("report", "acb", "ce", "--against", "every", code=2).output
    assert "--against is of the report of one run." in said


# --- rows with a duplicate in training -----------------------------------------------------------


def test_outer_rows_with_a_twin_in_training_are_named_and_left_out(here: Path) -> None:
    metrics = json.loads(Path("runs/acb/metrics.json").read_text())
    classes = ["positive", "neutral", "negative"]
    judged = RunFolder(Path("runs/acb")).predictions
    inside = {int(guid) for guid in judged.guids}
    pairs = [pair for pair in TWINS.items() if max(pair) < 120]
    # A pair with one post on each side: that on the outer side has a duplicate in training.
    expected = [
        str(g) for a, b in pairs for g, o in ((a, b), (b, a)) if g in inside and o not in inside
    ]
    assert metrics["duplicates"] == {"rows": len(expected), "guids": sorted(expected, key=int)}
    kept = np.array([guid not in expected for guid in judged.guids])
    without = probability_score(
        judged.labels[kept],
        judged.probabilities[kept] / judged.probabilities[kept].sum(1, keepdims=True),
        classes,
    )
    found = metrics["outer_without_duplicates"]
    assert found["confusion"] == without.confusion
    assert found["brier"] == pytest.approx(without.brier, abs=1e-5)
    assert metrics["intervals"]["accuracy"]["low"] <= metrics["outer"]["accuracy"]
    every = json.loads(Path("runs/every/metrics.json").read_text())
    assert {*every["duplicates"]["guids"]} <= {str(g) for pair in pairs for g in pair}


def test_evaluate_tells_seen_rows_and_rows_with_a_twin_apart(here: Path) -> None:
    answers = dict(x.split(",") for x in Path("posts/answers.csv").read_text().splitlines()[1:])
    found = json.loads(
        call("evaluate", "--run", "every", "--labels", "posts/answers.csv", "--json").stdout
    )
    assert found["rows_seen_in_training"] == 0
    assert found["rows_with_duplicate_in_training"] == 2
    assert found["without_duplicates"]["rows"] == len(answers) - 2
    assert found["intervals"]["roc_auc"]["low"] <= found["roc_auc"]
    shown = call("evaluate", "--run", "every", "--labels", "posts/answers.csv").output
    assert "2 of these 12 rows have a duplicate that took part in training" in shown
    Path("twins.csv").write_text(
        "guid,tag\n" + "".join(f"{g},{answers[g]}\n" for g in ("122", "123"))
    )
    only = json.loads(call("evaluate", "--run", "every", "--labels", "twins.csv", "--json").stdout)
    assert only["without_duplicates"] is None


def test_learned_rows_of_every_kind_of_outer_split() -> None:
    judged = np.array([True, False, False, False])
    groups = np.array([0, 0, 1, 2])
    assert learned_rows("report", judged, groups).tolist() == [False, False, True, True]
    for kind in ("report-parity", "grouped"):
        assert learned_rows(kind, judged, groups).tolist() == [False, True, True, True]
    assert learned_rows("stratified-5", ~judged, groups).all()


# --- attention -----------------------------------------------------------------------------------


def loaded(name: str) -> tuple[Predictor, FeatureBank]:
    model = load_model(name)
    return model, model.session.bank("train")


@pytest.mark.parametrize(("name", "patches"), [("ce", 16), ("every", 64)])
def test_attention_is_what_forward_gives(here: Path, name: str, patches: int) -> None:
    model, bank = loaded(name)
    ensemble, samples = model.ensemble, model.session.samples("train")
    blend = ensemble.blends[attention_setting(ensemble)]
    weights = attention_map(blend.members[:1], blend.setting, bank, 4)
    text, text_mask = bank.text.sequences(bank.text.table[4, :1])
    row = bank.image.table[4, :1]
    image, image_mask = bank.image.grid(row, 4) if patches == 16 else bank.image.sequences(row)
    member = blend.members[0].eval()
    with torch.inference_mode():
        _, out = member(text.float(), text_mask, image.float(), image_mask, need_weights=True)
    attention = out["attention"][0].numpy()
    if name == "every":  # (layers, positions, positions) over text and patches
        tokens = text.shape[1]
        attention = attention.mean(0)[:tokens, tokens:]
        attention = attention / attention.sum(1, keepdims=True)
    assert weights.shape == (text.shape[1], patches)
    assert weights.sum(1) == pytest.approx(1)
    assert weights == pytest.approx(attention, abs=1e-4)
    assert samples[4].guid == "4"


def test_words_get_the_mean_of_their_tokens(here: Path) -> None:
    model, bank = loaded("ce")
    samples = model.session.samples("train")
    maps = attention_explainer(model.session, model.record, model.ensemble, bank)(["90", "4"])
    post = maps.posts["90"]
    text = next(s.text for s in samples if s.guid == "90")
    assert post.words[:-1] == text.split()[:-1], "what stands between spaces is a word"
    assert text.split()[-1].startswith(post.words[-1]), "the encoder reads 16 tokens"
    assert post.weights.shape == (len(post.words), 4, 4)
    assert post.weights.sum(axis=(1, 2)) == pytest.approx(1)
    assert post.picture.shape == (64, 64, 3)
    both = np.arange(12.0).reshape(4, 3)
    assert average_words(both, [("a", [1]), ("b", [2, 3])]).tolist() == [[3, 4, 5], [7.5, 8.5, 9.5]]


def test_a_cross_validation_shows_members_that_did_not_learn_from_the_post(here: Path) -> None:
    from mmsa_cache.compose.report.model_attention import _outer_parts

    model, bank = loaded("every")
    ensemble, samples = model.ensemble, model.session.samples("train")
    of_part = _outer_parts(model.record, model.session)
    judged = RunFolder(Path("runs/every")).predictions
    row = {sample.guid: number for number, sample in enumerate(samples)}
    blend, each = ensemble.blends[0], len(ensemble.blends[0].members) // 2
    for part in (0, 1):
        guids = [guid for guid in judged.guids if of_part[guid] == part]
        members = blend.members[part * each : (part + 1) * each]
        mean = type(blend)(blend.setting, members).predict(bank, np.array([row[g] for g in guids]))
        own = judged.probabilities[[judged.guids.index(guid) for guid in guids]]
        # Temperature T and biases b: log-odds are those of these members, divided by T, plus b.
        want, known = (np.log(p[:, 1:] / p[:, :1]) for p in (own, mean))
        slopes = [np.polyfit(known[:, code], want[:, code], 1, full=True) for code in (0, 1)]
        assert slopes[0][0][0] == pytest.approx(slopes[1][0][0])
        for _, residuals, *_ in slopes:
            np.testing.assert_allclose(residuals, 0, atol=1e-8)
    maps = attention_explainer(model.session, model.record, ensemble, bank)(["7"])
    judging = blend.members[of_part["7"] * each :][:each]
    weights = attention_map(judging, blend.setting, bank, row["7"])
    assert maps.posts["7"].weights[0].ravel() == pytest.approx(weights[1])  # the token after [CLS]
    # As of a nested choice that gave this setting to one of the outer parts.
    part = of_part["7"]
    other = next(guid for guid in judged.guids if of_part[guid] != part)
    (own,) = model.record.models
    record = model.record.model_copy(
        update={"models": [own.model_copy(update={"parts": [part + 1]})]}
    )
    members = blend.members[part * each :][:each]
    nested = replace(ensemble, blends=[replace(blend, members=members)])
    explain = attention_explainer(model.session, record, nested, bank)
    maps = explain(["7", other])
    assert list(maps.posts) == ["7"], "no member of this setting judged the other post"
    assert maps.posts["7"].weights[0].ravel() == pytest.approx(weights[1])
    assert "have no attention" in explain([other]).note


# --- which runs are compared ---------------------------------------------------------------------


def record_of(folds: int = 5, models: int = 1, **setting: Any) -> RunRecord:
    of = {"fusion": "concat", "loss": "acb", "alpha": 0.25} | setting
    trained = [made_up_run.model_of(**of)] * models
    return RunRecord.model_validate(made_up_run.config_of(folds=folds, models=trained))


def test_only_runs_that_differ_in_the_loss_are_rivals() -> None:
    own = record_of()
    assert is_rival(own, record_of(loss="ce", alpha=0.9))
    assert is_rival(record_of(loss="ce"), record_of(loss="focal"))
    assert not is_rival(own, record_of(loss="focal")), "neither is the baseline"
    assert not is_rival(own, record_of())
    assert not is_rival(own, record_of(alpha=0.5))
    assert not is_rival(own, record_of(loss="ce", fusion="combine"))
    assert not is_rival(own, record_of(loss="ce", folds=3))
    assert other_differences(own, record_of(loss="ce", fusion="combine", folds=3)) == [
        "folds",
        "fusion",
    ]
    assert other_differences(own, record_of(loss="ce", models=2)) == ["number of settings"]


def test_the_command_for_the_other_loss_names_the_trial(tmp_path: Path) -> None:
    command = "mmsa train --study best --set loss=acb --study kernel --name one --folds 3 --json\n"
    (tmp_path / "command.txt").write_text(command)
    studies = [
        {"name": "quick", "trial": 7, "score": 0.5},
        {"name": "kernel", "trial": None, "score": None},
    ]
    (tmp_path / "config.json").write_text(json.dumps(made_up_run.config_of(studies=studies)))
    assert command_for(RunFolder(tmp_path), "one", "ce") == (
        "mmsa train --study quick:7 --study kernel --folds 3 --set loss=ce --name one-ce"
    )
    (tmp_path / "command.txt").write_text("mmsa demo")
    assert "mmsa train …" in command_for(RunFolder(tmp_path), "one", "ce")
