"""The store goes alone: stage two on another machine, and in a folder that was renamed."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose.predict.predictor import load_model
from tests.support.pairs import make_pairs
from tests.support.small_work import QUICK, call, call_json, mmsa
from tests.support.tiny import tiny_toml

STUDY = """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
text_dim = 16
image_dim = 16
[space]
fusion = ["concat", "attention_combine"]
loss = ["acb", "ce"]
"""
SEARCH = ("search", "--study", "quick", "--trials", "2", "--workers", "1")
PREDICT = ("predict", "--run", "acb", "--split", "test")
EVALUATE = ("evaluate", "--run", "acb", "--labels", "answers.csv")
COMPARE = ("compare", "acb", "ce", "--grouped")
ABLATE = ("ablate", "--axis", "loss=acb,ce", "--workers", "1", *QUICK)


def untimed(value: Any) -> Any:
    """A record without what a clock gave."""
    if isinstance(value, list):
        return [untimed(item) for item in value]
    if not isinstance(value, dict):
        return value
    timed = ("seconds", "seconds_of_trainings", "overhead_share")
    return {key: untimed(item) for key, item in value.items() if key not in timed}


def stage_two(folder: Path) -> dict[str, Any]:
    """Everything after extraction; what it said, without times and places."""
    found: dict[str, Any] = {"search": untimed(call_json(folder, *SEARCH))}
    call(folder, "train", "--study", "best", "--name", "best")
    for loss in ("acb", "ce"):
        call(folder, "train", "--name", loss, "--set", f"loss={loss}", *QUICK)
    call(folder, *PREDICT, "--out", "predicted.csv")
    found["predicted"] = (folder / "predicted.csv").read_bytes()
    found["probabilities"] = call_json(folder, *PREDICT)
    found["evaluated"] = call_json(folder, *EVALUATE)
    found["compared"] = call_json(folder, *COMPARE)
    found["ablated"] = untimed(call_json(folder, *ABLATE))
    for run in ("best", "acb", "ce"):
        for name in ("model.safetensors", "predictions.csv", "metrics.json"):
            found[f"{run}/{name}"] = (folder / "runs" / run / name).read_bytes()
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """Data, encoders and store side by side."""
    folder = tmp_path_factory.mktemp("home")
    make_pairs(folder / "posts", 92)
    shutil.copytree(text_model, folder / "tiny-bert")
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            "tiny-bert",
            "mobilenetv2_035",
            """[extract]
variants = 1
""",
            data='root = "posts"\nnote = "drawn by a test"',
        )
    )
    shutil.copy(folder / "posts/answers.csv", folder)
    (folder / "studies").mkdir()
    (folder / "studies/quick.toml").write_text(STUDY)
    call(folder, "extract", "--split", "all")
    return folder


@pytest.fixture(scope="module")
def beside(home: Path) -> dict[str, Any]:
    return stage_two(home)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection raises but those between processes of this machine."""
    connect = socket.socket.connect

    def local(own: socket.socket, address: Any) -> None:
        assert own.family == socket.AF_UNIX, f"a connection to {address}"
        connect(own, address)

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a look-up of {arguments}")

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def alone(home: Path, beside: object, tmp_path: Path, no_network: None) -> Iterator[Path]:
    """The store, a study and answers in a folder; home is gone."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copytree(home / "cache", folder / "cache")
    shutil.copy(home / "answers.csv", folder)
    (folder / "studies").mkdir()
    shutil.copy(home / "studies/quick.toml", folder / "studies")
    hidden = home.rename(home.with_name("gone"))
    yield folder
    hidden.rename(home)


def test_the_store_alone_gives_what_it_gave_beside_the_data(
    alone: Path, beside: dict[str, Any]
) -> None:
    found = stage_two(alone)
    assert found.keys() == beside.keys()
    for name, value in found.items():
        assert value == beside[name], name

    said = mmsa(alone, "train", "--name", "said", *QUICK).stderr
    (note,) = [line for line in said.splitlines() if "not checked" in line]
    assert "the data" in note
    assert "the text encoder tiny-bert (random weights)" in note
    assert "drawn by a test" in said

    page = (alone / "runs/acb/report.html").read_text()
    call(alone, "report", "acb")
    assert "The pictures are not at hand" in (alone / "runs/acb/report.html").read_text()
    assert "The pictures are not at hand" in page

    # What needs an encoder says which one is missing; the store still predicts its own rows.
    one = ("predict", "--run", "acb", "--text", "good day")
    failed = mmsa(alone, *one, code=4).stderr
    assert "tiny-bert" in failed
    exported = mmsa(alone, "export", "acb", "--to", "exported").stderr
    assert "encoder tiny-bert (random weights) is not at hand" in exported
    assert str(alone.parent) not in (alone / "exported" / "config.json").read_text()
    tensors = (alone / "exported" / "model.safetensors").read_bytes()
    assert tensors == (alone / "runs" / "acb" / "model.safetensors").read_bytes()
    rows = load_model(alone / "runs/acb", allow_outside=True).predict_split("test")
    assert [guid for guid, _ in rows] == [str(i) for i in range(80, 92)]


def test_without_a_label_file_at_hand_the_training_rows_are_judged_by_the_store(
    alone: Path, home: Path
) -> None:
    call(alone, "train", "--name", "r", *QUICK)
    config = json.loads((alone / "runs/r/config.json").read_text())
    assert config["classes"] == ["positive", "neutral", "negative"]
    assert call_json(alone, "cache", "show", "7")["image"] is None
    labels = (alone / "runs/r/predictions.csv").read_text().splitlines()[1:]
    answers = dict(
        line.split(",")
        for line in (home.with_name("gone") / "posts/train.txt").read_text().splitlines()[1:]
    )
    assert labels
    assert all(answers[line.split(",")[0]] == line.split(",")[1] for line in labels)


def test_a_renamed_working_folder_goes_on(
    home: Path, beside: dict[str, Any], tmp_path: Path
) -> None:
    moved = home.rename(tmp_path / "renamed")
    try:
        call(moved, *PREDICT, "--out", "again.csv")
        assert (moved / "again.csv").read_bytes() == beside["predicted"]
        assert call_json(moved, *PREDICT) == beside["probabilities"]
        assert call_json(moved, *EVALUATE) == beside["evaluated"]
        assert call_json(moved, *COMPARE) == beside["compared"]
        call(moved, "report", "acb", "--out", "page.html")
        assert "not at hand" not in (moved / "page.html").read_text()
        extracted = call_json(moved, "extract", "--split", "all")
        assert {record["rows_computed"] for record in extracted} == {0}
        post = ("--text", "good day", "--image", "posts/pairs/85.jpg")
        (live,) = call_json(moved, "predict", "--run", "acb", *post)
        call(moved, "export", "acb", "--to", "exported")
        (exported,) = call_json(moved, "predict", "--run", "exported", *post)
        assert exported["probabilities"] == pytest.approx(live["probabilities"], abs=1e-12)
        assert str(home) not in (moved / "runs/acb/config.json").read_text()
    finally:
        moved.rename(home)
