"""A third split: named, refused where it is not there, and judging with ``--outer val``."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fuse.search.pool import WorkerOptions
from mmsa_cache.data.protocol import JOINED, Protocol
from mmsa_cache.data.splits import learned_rows, outer_splits
from mmsa_cache.errors import SettingsError
from mmsa_cache.runs.folder import RunFolder
from tests.support.data_folders import mmsa
from tests.support.fake_search import start_thread
from tests.support.posts import posts, write_table
from tests.support.tiny import tiny_toml

CLASSES = ("good", "plain", "bad")
QUICK = ("--set", "epochs=1", "--set", "text_dim=8", "--set", "image_dim=8", "--folds", "2")
TWINS = 2


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """Three tables that count their guids anew; two posts of val are in train too."""
    folder = tmp_path_factory.mktemp("splits")
    tables = {
        name: posts(folder / "posts", rows, CLASSES, first)
        for name, rows, first in (("train", 30, 0), ("dev", 9, 30), ("test", 6, 39))
    }
    for rows in tables.values():
        for number, row in enumerate(rows):
            row["guid"] = str(number)
    tables["dev"][0]["image"] = tables["train"][3]["image"]
    tables["dev"][4]["text"] = tables["train"][7]["text"]
    for name, rows in tables.items():
        write_table(folder / "posts" / f"{name}.csv", rows)
    (folder / "mmsa.toml").write_text(
        tiny_toml(text_model, "resnet10t", '[extract]\nvariants = "report"\n')
    )
    mmsa(folder, "extract", "--split", "all")
    mmsa(folder, "train", "--outer", "val", "--name", "v", *QUICK)
    return folder


def test_rows_of_val_judge_and_their_twins_are_not_learned_from(work: Path) -> None:
    run = RunFolder(work / "runs" / "v")
    assert run.record.protocol.outer == "val-9"
    assert run.predictions.guids == [str(number) for number in range(9)]
    assert [CLASSES[n % 3] for n in range(30, 39)] == [
        run.record.classes[code] for code in run.predictions.labels
    ]
    assert run.figures.training_rows == 30 - TWINS
    assert run.figures.outer.rows == 9
    assert run.figures.duplicates is not None
    assert not run.figures.duplicates.rows
    assert "the rows of the split val" in (run.path / "report.html").read_text()
    assert "#30" in (run.path / "report.html").read_text(), "the gallery shows posts of val"


def test_the_split_that_judges_is_part_of_what_a_run_is(work: Path) -> None:
    record = RunFolder(work / "runs" / "v").record
    assert record.origin is not None
    assert record.origin.val
    shown = mmsa(work, "train", "--name", "t", *QUICK).output
    assert "the data has a split val, which judges with --outer val" in shown
    origin = RunFolder(work / "runs" / "t").record.origin
    assert origin is not None
    assert "val" not in origin.model_dump(), "identities of before stay as they were"
    assert origin.data == record.origin.data
    found = mmsa(work, "compare", "v", "t", code=4).output
    assert "judged on rows of different splits" in found


def test_a_command_that_is_given_again_goes_on_or_finds_its_run(work: Path) -> None:
    (work / "runs" / "v" / "report.html").unlink()
    mmsa(work, "report", "v")
    assert "#30" in (work / "runs" / "v" / "report.html").read_text()
    taken = mmsa(work, "train", "--outer", "val", "--name", "v", *QUICK, code=2).output
    assert "v" in taken
    refused = mmsa(work, "train", "--outer", "val-8", "--name", "w", *QUICK, code=2).output
    assert "val has 9 rows" in refused


STUDY = """[protocol]
outer = "report"
folds = 2
[fixed]
epochs = 1
fusion = "concat"
image_dim = 8
[space]
text_dim = [8, 16]
"""


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches without processes of their own."""
    workers = functools.partial(WorkerOptions, start=start_thread)
    monkeypatch.setattr("mmsa_cache.compose.search.workers.WorkerOptions", workers)


@pytest.mark.usefixtures("in_threads")
def test_a_choice_is_judged_by_val_and_trained_as_it_was_searched(work: Path) -> None:
    (work / "studies").mkdir()
    (work / "studies" / "small.toml").write_text(STUDY)
    search = ("search", "--study", "small", "--outer", "val", "--workers", "1", "--trials")
    found = json.loads(mmsa(work, *search, "1", "--json").stdout)
    assert (found["study"], found["outer_rows"]) == ("small@val", 9)
    again = json.loads(mmsa(work, *search, "2", "--json").stdout)
    assert again["trials"]["complete"] == 2, "the study goes on"
    shown = mmsa(work, "train", "--study", "small@val", "--single", "--name", "s").output
    assert re.search(r"inner macro_f1 of the members (\S+), of trial \d \1\.", shown)
    assert RunFolder(work / "runs" / "s").record.protocol.outer == "val-9"
    assert "--outer val" not in shown
    # The file of the study may name val itself.
    (work / "studies" / "small.toml").write_text(STUDY.replace('"report"', '"val"'))
    own = json.loads(mmsa(work, *search[:3], "--workers", "1", "--trials", "1", "--json").stdout)
    assert (own["study"], own["outer_rows"]) == ("small", 9)
    axes = ("--axis", "text_dim=8", "--set", "epochs=1", "--folds", "2", "--workers", "1", "--json")
    cells = json.loads(mmsa(work, "ablate", *axes, "--outer", "val").stdout)
    assert cells["judged"] == {"bad": 3, "good": 3, "plain": 3}


def test_every_split_with_labels_is_scored(work: Path) -> None:
    found = json.loads(mmsa(work, "evaluate", "--run", "v", "--json").stdout)
    assert [(of["split"], of["rows"]) for of in found] == [("val", 9), ("test", 6), ("train", 30)]
    run = RunFolder(work / "runs" / "v")
    assert found[0]["accuracy"] == pytest.approx(run.figures.outer.accuracy)
    assert found[0]["confusion"] == run.figures.outer.confusion
    assert [of["rows_seen_in_training"] for of in found] == [0, 0, 28]
    assert [of["rows_with_duplicate_in_training"] for of in found] == [0, 0, 0]
    shown = mmsa(work, "evaluate", "--run", "v").output
    assert "28 of these 30 rows of train took part in training" in shown
    (test,) = json.loads(mmsa(work, "evaluate", "--run", "v", "--split", "test", "--json").stdout)
    assert test == found[1]


def test_a_split_that_cannot_be_read_is_not_left_out(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "posts", tmp_path / "posts")
    with (tmp_path / "posts" / "test.csv").open("a") as table:
        table.write("no,such picture,images/none.jpg,good\n")
    asked = ("evaluate", "--run", "v", "--data", str(tmp_path / "posts"))
    assert "images/none.jpg" in mmsa(work, *asked, code=3).output
    assert "9 " in mmsa(work, *asked, "--split", "val").output
    shutil.copy(work / "posts" / "test.csv", tmp_path / "posts")
    (tmp_path / "posts" / "train.csv").unlink()
    (tmp_path / "posts" / "dev.csv").unlink()
    (alone,) = json.loads(mmsa(work, *asked, "--json").stdout)
    assert (alone["split"], alone["rows_seen_in_training"]) == ("test", 0)


def test_labels_may_be_any_table(work: Path) -> None:
    whole = json.loads(mmsa(work, "evaluate", "--run", "v", "--split", "test", "--json").stdout)[0]
    rows = posts(work / "posts", 6, CLASSES, 39)
    for number, row in enumerate(rows):
        row["guid"] = str(number)
    plain = "".join(f"{row['guid']},{row['label']}\n" for row in rows)
    lines = "".join(json.dumps({"id": r["guid"], "tag": r["label"].upper()}) + "\n" for r in rows)
    (work / "test.csv").write_text(f"guid,tag\n{plain}")
    (work / "test.tsv").write_text(
        "label\tguid\n" + "".join(f"{r['label']}\t{r['guid']}\n" for r in rows)
    )
    (work / "test.jsonl").write_text(lines)
    for path in ("posts/test.csv", "test.csv", "test.tsv", "test.jsonl"):
        found = json.loads(mmsa(work, "evaluate", "--run", "v", "--labels", path, "--json").stdout)
        assert found["confusion"] == whole["confusion"], path
        assert found["intervals"] == whole["intervals"], path
    shutil.copy(work / "test.csv", work / "other.csv")
    refused = mmsa(work, "evaluate", "--run", "v", "--labels", "other.csv", code=3).output
    assert "6 guid(s) are in several splits" in refused
    asked = ("--labels", "other.csv", "--split", "test", "--json")
    found = json.loads(mmsa(work, "evaluate", "--run", "v", *asked).stdout)
    assert found["confusion"] == whole["confusion"]


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("validation", "val"), ("dev", "val"), ("tset", "test"), ("Train", "train")],
)
def test_another_split_is_refused_with_the_nearest(work: Path, given: str, nearest: str) -> None:
    said = f"There is no split {given!r} (near: {nearest})."
    for command in (
        ("predict", "--run", "v"),
        ("evaluate", "--run", "v"),
        ("extract",),
        ("cache", "show", "0"),
        ("cache", "import", "x.npy", "--modality", "text", "--name", "x"),
    ):
        assert said in mmsa(work, *command, "--split", given, code=2).output, command


def test_a_split_of_val_is_predicted_as_such(work: Path) -> None:
    rows = json.loads(mmsa(work, "predict", "--run", "v", "--split", "val", "--json").stdout)
    run = RunFolder(work / "runs" / "v")
    for row, probabilities in zip(rows, run.predictions.probabilities, strict=True):
        assert [*row["probabilities"].values()] == pytest.approx(probabilities.tolist())


def test_a_split_that_is_not_there_is_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "posts", tmp_path / "posts")
    (tmp_path / "posts" / "dev.csv").unlink()
    shutil.copy(work / "mmsa.toml", tmp_path)
    said = mmsa(tmp_path, "extract", "--split", "val", code=3).output
    assert "it has no split val" in said
    assert "Its splits: train, test." in said
    assert "split val" not in mmsa(tmp_path, "extract").output
    mmsa(tmp_path, "train", "--outer", "val", *QUICK, code=3)
    shutil.copy(work / "posts" / "dev.csv", tmp_path / "posts")
    assert "the data has a split val, which is not extracted" in mmsa(tmp_path, "extract").output


def test_outer_rows_of_val_by_hand() -> None:
    labels, groups = np.arange(10) % 3, np.array([0, 1, 2, 3, 4, 5, 6, 1, 8, 4])
    ((development, judged),) = outer_splits("val-3", labels, groups, 47)
    assert judged.tolist() == [7, 8, 9]
    assert development.tolist() == [0, 2, 3, 5, 6]
    mask = np.isin(np.arange(10), judged)
    assert learned_rows("val-3", mask, groups).nonzero()[0].tolist() == development.tolist()
    for kind in ("val", "val-10", "val-0"):
        with pytest.raises(SettingsError):
            outer_splits(kind, labels, groups, 47)
    assert Protocol(outer="val").split == Protocol(outer="val-3").split == JOINED
    assert Protocol(outer="valid").split == "train"
