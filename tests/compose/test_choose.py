"""What mmsa train makes of studies: ensembles, one setting, their protocol, nested choices."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fuse.search.database import read_studies
from fuse.search.pool import WorkerOptions
from mmsa_cache.compose.search import workers as workers_module
from tests.support.fake_search import start_thread
from tests.support.small_work import call, call_json, make_work, mmsa

STUDY = """[protocol]
outer = "grouped"
folds = 2
metric = "METRIC"
[fixed]
epochs = 2
batch_size = 16
text_dim = 8
image_dim = 8
head = "6"
keep = "last"
schedule = "constant"
[space]
level = ["pooled", "tokens"]
loss = ["acb", "ce"]
learning_rate = { low = 3e-4, high = 3e-3, log = true }
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Any:
    """A folder with a searched study, its workers threads of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers_module, "WorkerOptions", partial(WorkerOptions, start=start_thread))
        folder = make_work(tmp_path_factory.mktemp("choose"), text_model)
        (folder / "studies").mkdir()
        (folder / "studies/tiny.toml").write_text(STUDY.replace("METRIC", "macro_f1"))
        (folder / "studies/twin.toml").write_text(STUDY.replace("METRIC", "macro_f1"))
        other = STUDY.replace("METRIC", "accuracy").replace("folds = 2", "folds = 3")
        (folder / "studies/other.toml").write_text(other)
        search(folder, "tiny", 6, "--seed", "5")
        yield folder


def search(folder: Path, study: str, trials: int, *more: str) -> None:
    call(folder, "search", "--study", study, "--trials", str(trials), "--workers", "1", *more)


def test_an_ensemble_has_the_picked_weights(work: Path) -> None:
    record = call_json(work, "train", "--study", "tiny", "--ensemble", "3", "--name", "three")
    (picked,) = record["ensembles"]
    config = json.loads((work / "runs/three/config.json").read_text())
    assert len(config["models"]) == len(picked["members"]) <= 3
    trials = {t.number: t for t in read_studies(work / "studies/studies.db")[0].trials}
    for model, member in zip(config["models"], picked["members"], strict=True):
        assert model["weight"] == pytest.approx(member["weight"])
        assert model["setting"]["learning_rate"] == trials[member["trial"]].setting().learning_rate
    assert sum(member["weight"] for member in picked["members"]) == pytest.approx(1)
    assert picked["rows"] == record["training_rows"]
    # One member a setting, of all development rows; the folds are the study's, as is the seed.
    assert config["refit"]
    assert (config["folds"], config["seed"], config["outer"]) == (2, 5, "grouped")
    names = load_file(work / "runs/three/model.safetensors")
    assert len({tuple(name.split(".")[:2]) for name in names}) == len(picked["members"])
    # The search has trained the folds: they calibrate as trained again.
    assert record["members"] == []
    folds = call_json(work, "train", "--study", "tiny", "--ensemble", "3", "--no-refit")
    assert len(folds["members"]) == 2 * len(picked["members"])
    for figure in ("accuracy", "macro_f1", "neg_log_loss"):
        same = folds["inner_uncalibrated"][figure]
        assert record["inner_uncalibrated"][figure] == pytest.approx(same, abs=2e-3)
    saved = json.loads((work / "runs/three/metrics.json").read_text())
    assert saved["ensembles"] == record["ensembles"]
    page = (work / "runs/three/report.html").read_text()
    heaviest = picked["members"][0]
    assert f"tiny:{heaviest['trial']}</th><td>{heaviest['weight']:.2f}</td>" in page
    assert "The ensemble and the best single trial" in page
    assert "study tiny" not in " ".join(record["notes"])


def test_a_study_file_is_searched_under_another_name(work: Path) -> None:
    path = work / "studies/tiny.toml"
    before = path.read_text()
    path.write_text(before.replace("[fixed]", "[fixed]\npatience = 7"))
    flags = ("search", "--study", "tiny", "--seed", "5", "--trials", "1", "--workers", "1")
    said = call(work, *flags, code=2)
    assert "  - fixed.patience: the study has (absent), expected 7" in said
    assert "Begin another one (--name NAME), or go back to what it was begun with." in said
    assert "'../x' is no name of a study" in call(work, *flags, "--name", "../x", code=2)
    call(work, *flags, "--name", "mine")
    path.write_text(before)
    assert (
        "Training trial 0 of study mine"
        in mmsa(work, "train", "--study", "mine", "--single", "--summary").output
    )


def test_the_budget_bounds_the_model_file(work: Path) -> None:
    flags = ("train", "--study", "tiny", "--ensemble", "5", "--max-mb", "1", "--name", "small")
    call(work, *flags)
    assert (work / "runs/small/model.safetensors").stat().st_size < 1.05e6
    found = call(work, "train", "--study", "tiny:1", "--ensemble", "2", code=2)
    assert "--ensemble picks among the trials" in found


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_a_run_scores_inside_what_its_trial_scored(work: Path, level: str) -> None:
    (study,) = [s for s in read_studies(work / "studies/studies.db") if s.name == "tiny"]
    trial = next(t for t in study.trials if t.setting().level == level)
    run = ("train", "--study", f"tiny:{trial.number}")
    record = call_json(work, *run, "--name", f"same-{level}")
    inner = [member["macro_f1"] for member in record["members"]]
    assert inner == pytest.approx(trial.result.units, abs=1e-6)
    assert "took part" not in " ".join(record["notes"])
    assert "of trial" not in " ".join(record["notes"])
    other = call_json(work, *run, "--name", f"else-{level}", "--folds", "3", "--seed", "6")
    assert f"of trial {trial.number} {trial.score:.4f}" in other["notes"][-1]
    assert "folds 3 in place of 2; seed 6 in place of 5" in other["notes"][-1]
    (seen,) = [note for note in other["notes"] if "took part in the choice" in note]
    development = len(study.trials[0].held_out.rows)  # type: ignore[union-attr]
    rows = record["outer"]["rows"] + development
    assert 0 < int(seen.split()[0]) <= development
    assert f"of {other['outer']['rows']} outer rows" in seen
    assert other["outer"]["rows"] <= rows


def test_studies_are_compared_and_pooled_where_they_can_be(work: Path) -> None:
    database = ("--storage", "sqlite:///studies/more.db", "--seed", "5")
    for study in ("other", "tiny", "twin"):
        search(work, study, 2, *database)
    flags = ("train", "--study", "best", *database)
    record = call_json(work, *flags, "--single", "--name", "more")
    config = json.loads((work / "runs/more/config.json").read_text())
    assert config["study"]["name"] in ("tiny", "twin")
    assert config["study"]["storage"] == "sqlite:///studies/more.db"
    assert not record.get("ensembles")
    said = mmsa(work, *flags, "--single", "--summary").output
    assert "Compared: tiny, twin." in said
    assert "other has folds 3, metric accuracy" in said
    both = ("train", "--study", "tiny", "--study", "twin", *database, "--ensemble", "4")
    said = mmsa(work, *both, "--summary").output
    assert "of 4 trials: t" in said
    assert "rows that chose neither: log-likelihood" in said
    wrong = call(work, *both, "--study", "other", code=2)
    assert "other folds or outer rows" in wrong
    assert "There is no study 'other'" in call(work, "train", "--study", "other", code=2)


def test_a_nested_choice_is_made_in_every_part_and_goes_on(work: Path) -> None:
    flags = ("train", "--nested", "--study", "tiny", "--outer", "stratified-2", "--trials", "2")
    flags += ("--workers", "1", "--storage", "sqlite:///studies/nested.db", "--ensemble", "2")
    record = call_json(work, *flags, "--name", "nested")
    labelled = 80
    assert record["outer"]["rows"] == labelled
    # The baselines of both searches judged the same rows; the differences are of the rules.
    assert sorted(record["baselines"]) == ["RBF support vectors", "logistic regression"]
    for found in record["baselines"].values():
        for rule in ("accuracy", "macro_f1"):
            own = record["decisions"][rule][rule]
            assert found[rule]["choice"] == pytest.approx(own)
        assert found["neg_log_loss"]["choice"] == pytest.approx(record["outer"]["neg_log_loss"])
    assert [picked["part"] for picked in record["ensembles"]] == [1, 2]
    assert not [note for note in record["notes"] if "took part" in note]
    studies = {s.name: s for s in read_studies(work / "studies/nested.db")}
    assert sorted(studies) == ["tiny@1-of-stratified-2", "tiny@2-of-stratified-2"]
    rows = [study.trials[0].held_out.rows for study in studies.values()]  # type: ignore[union-attr]
    assert np.intersect1d(*rows).size == 0
    config = json.loads((work / "runs/nested/config.json").read_text())
    assert sum(model["weight"] for model in config["models"]) == pytest.approx(1)
    call_json(work, *flags, "--name", "again")
    again = {s.name: len(s.trials) for s in read_studies(work / "studies/nested.db")}
    assert again == dict.fromkeys(studies, 2)
    one, two = (work / f"runs/{name}/metrics.json" for name in ("nested", "again"))
    assert one.read_bytes() == two.read_bytes()
    wrong = call(work, "train", "--nested", "--outer", "report", "--study", "tiny", code=2)
    assert "Give --outer stratified-5" in wrong
