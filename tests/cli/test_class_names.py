"""Classes of any name, and classes without a row, go the whole way."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from mmsa_cache import load_model
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.console import format_table
from mmsa_cache.names import class_problem
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.tracking import flatten_scalars
from tests.support.data_folders import mmsa
from tests.support.posts import posts, write_table
from tests.support.tiny import tiny_toml

NAMES = ("<UNK>", "a/b", "负面", "=SUM(A1)", "-x", "[bold]", "n" * 80, "😀", "a,b", "Up", "up")
QUICK = ("--set", "epochs=1", "--set", "text_dim=8", "--set", "image_dim=8", "--folds", "2")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """A run that tells classes of odd names apart, judged by a split that lacks the last two."""
    folder = tmp_path_factory.mktemp("names")
    root, count = folder / "posts", len(NAMES)
    write_table(_made(root) / "train.csv", posts(root, 4 * count, NAMES))
    val = [row for row in posts(root, 2 * count, NAMES, 4 * count) if row["label"].lower() != "up"]
    write_table(root / "val.csv", val)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "resnet10t",
            '[extract]\nvariants = "none"\n',
            data=f'root = "posts"\nclasses = {json.dumps(NAMES, ensure_ascii=False)}',
        )
    )
    mmsa(folder, "check")
    mmsa(folder, "extract", "--split", "all")
    flags = ("--outer", "val", "--name", "r", "--track", "tensorboard")
    mmsa(folder, "train", *flags, *QUICK)
    return folder


def _made(root: Path) -> Path:
    root.mkdir(parents=True)
    return root


def test_every_file_of_the_run_is_read_again(work: Path) -> None:
    run = RunFolder(work / "runs" / "r")
    assert run.record.classes == [*NAMES]
    assert [*run.figures.outer.per_class] == [*NAMES]
    assert {NAMES[code] for code in run.predictions.labels} == {*NAMES[:-2]}
    page = (run.path / "report.html").read_text()
    for name in ("&lt;UNK&gt;", "a/b", "负面", "=SUM(A1)", "-x", "[bold]", "n" * 80, "😀"):
        assert name in page
    assert "<UNK>" not in page
    mmsa(work, "report", "r")


def test_what_is_predicted_can_be_scored(work: Path) -> None:
    out = work / "p.csv"
    mmsa(work, "predict", "--run", "r", "--split", "val", "--out", "p.csv")
    with out.open(newline="") as file:
        tags = {row["tag"] for row in csv.DictReader(file)}
    assert not any(tag[0] in "=-" for tag in tags), "no spreadsheet computes a cell"
    found = json.loads(mmsa(work, "evaluate", "--run", "r", "--labels", "p.csv", "--json").stdout)
    assert found["accuracy"] == 1
    assert found["macro_f1"] == 1, "classes without a row do not count"
    rows = json.loads(mmsa(work, "evaluate", "--run", "r", "--json").stdout)
    assert [of["split"] for of in rows] == ["val", "train"]
    assert [*rows[0]["per_class"]] == [*NAMES]
    shown = mmsa(work, "predict", "--run", "r", "--text", "good day").output
    assert all(name in shown for name in NAMES)


def test_classes_without_a_judged_row_are_named(work: Path) -> None:
    said = "no judged row is of the class 'Up', 'up'"
    shown = mmsa(work, "train", "--outer", "val", "--name", "s", *QUICK).output
    assert said in shown
    assert said in mmsa(work, "evaluate", "--run", "r", "--split", "val").output
    compared = mmsa(work, "compare", "r", "s").output
    assert said in compared
    assert "recall of Up" not in compared
    page = (work / "runs" / "r" / "report.html").read_text()
    assert "No outer row is of Up, up" in page
    scores = RunFolder(work / "runs" / "r").figures.outer
    f1 = [of.f1 for of in scores.per_class.values() if of.support]
    assert scores.macro_f1 == pytest.approx(np.mean(f1))


def test_an_export_keeps_the_names(work: Path) -> None:
    mmsa(work, "export", "r", "--to", "e", "--format", "onnx")
    card = (work / "e" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "mmsa"
    assert "No test row is of the class Up" in card
    assert "&#60;UNK&#62;" in card
    import onnxruntime

    graph = onnxruntime.InferenceSession(work / "e" / "model.onnx")
    assert json.loads(graph.get_modelmeta().custom_metadata_map["classes"]) == [*NAMES]
    assert load_model(work / "e").classes == [*NAMES]
    assert [*load_model(work / "e", device="cpu").predict(text="good day")] == [*NAMES]


def test_columns_of_wide_letters_are_aligned() -> None:
    lines = format_table(["", "负面", "ok"], [["😀", "0.5", "1"], ["plain", "0.25", "2"]]).split(
        "\n"
    )
    assert lines == ["       负面  ok", "─────  ────  ──", "😀      0.5   1", "plain  0.25   2"]


def test_numbers_of_a_class_keep_one_path() -> None:
    found = flatten_scalars({"per_class": {"a/b": {"f1": 0.5}}})
    assert found == {"per_class/a_b/f1": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_a_class_may_have_this_name(name: str) -> None:
    assert class_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "null", "a\nb", "a\tb", "\x00", "\ud800", "n" * 201]
)
def test_a_name_that_could_not_be_read_again_is_refused_before_anything_is_written(
    name: str,
) -> None:
    assert class_problem(name)
    with pytest.raises(ValidationError, match=r"two or more distinct names; .*: it "):
        DataSettings(classes=("a", name))
