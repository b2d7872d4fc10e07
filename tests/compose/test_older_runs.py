"""Runs and exports that an earlier version wrote still work.

``run_57fd047`` was made by commit 57fd047, with encoders of random weights: two runs that differ in
the loss, the export of the first, and its prediction of one post.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.record import VERSION
from tests.support.made_up_run import change
from tests.support.older_runs import STORED, WANT
from tests.support.pairs import make_pairs
from tests.support.small_work import call, call_json

POST = ("--text", "good day sun", "--image", "posts/pairs/85.jpg")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored runs, with the data that they were made from."""
    folder = tmp_path_factory.mktemp("older")
    shutil.copytree(STORED, folder, dirs_exist_ok=True)
    make_pairs(folder / "posts", 92)
    shutil.copy(folder / "runs/old/model.safetensors", folder / "export")
    shutil.copytree(folder / "tiny-bert", folder / "export/encoders/text/tiny-bert")
    for config in folder.glob("runs/*/config.json"):
        config.write_text(config.read_text().replace("WORK", str(folder)))
    return folder


def as_now(calibration: dict[str, Any]) -> dict[str, Any]:
    """The offsets of an older calibration changed the probabilities: they are biases now."""
    offsets = calibration["offsets"]
    return {**calibration, "biases": offsets, "offsets": [0.0] * len(offsets)}


NEWER = {
    "columns": dict.fromkeys(("text", "image", "label", "guid")),
    "rows": "all",
    "missing": "refuse",
    "follow_links": False,
}
"""Keys of ``[data]`` that an older run lacks, and what they are then."""


def as_then(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the newer keys."""
    assert {key: settings["data"].pop(key) for key in NEWER} == NEWER
    return settings


def test_its_record_is_read_and_written_as_it_was(older: Path) -> None:
    for name in ("old", "old-ce"):
        run = RunFolder(older / "runs" / name)
        stored = json.loads((run.path / "config.json").read_text())
        written = json.loads(json.dumps(run.record.as_json()))
        as_then(written["settings"])
        assert written["origin"].pop("data") == ""  # newer versions name the data
        metrics = json.loads((run.path / "metrics.json").read_text())
        for content in (stored, metrics):
            content["calibration"] = as_now(content["calibration"])
        assert written == {"version": VERSION, "decide": "accuracy", **stored}
        assert run.figures.as_json() == metrics
        assert run.environment.as_json() == json.loads((run.path / "env.json").read_text())
        (study,) = json.loads((run.path / "studies.json").read_text())
        assert [snapshot.as_json() for snapshot in run.snapshots] == [study]
        assert len(run.history) == 4


@pytest.mark.parametrize("run", ["old", "export"])
def test_it_predicts_as_it_did(older: Path, run: str) -> None:
    (found,) = call_json(older, "predict", "--run", run, *POST)
    assert found["probabilities"] == pytest.approx(WANT, abs=1e-6)


def test_it_is_reported_and_compared(older: Path) -> None:
    record = call_json(older, "report", "old", "--out", "page.html")
    assert record["against"] == "old-ce"
    page = (older / "page.html").read_text()
    assert "Study quick" in page
    assert "Random weights: text encoder and image encoder not pretrained." in page
    (pair,) = call_json(older, "compare", "old", "old-ce", "--grouped")["pairs"]
    assert (pair["accuracy"]["first"], pair["accuracy"]["second"]) == (0.875, 0.9375)
    found = call_json(older, "evaluate", "--run", "old", "--labels", "posts/answers.csv")
    assert found["rows"] == 12


def test_it_is_exported(older: Path) -> None:
    call(older, "export", "old", "--to", "again")
    stored = json.loads((STORED / "export/config.json").read_text())
    found = json.loads((older / "again/config.json").read_text())
    as_then(found["settings"])
    for modality, fields in stored.pop("encoder_fields").items():  # newer versions name more
        now = found["encoder_fields"][modality]
        assert {key: now[key] for key in fields} == fields
    stored["calibration"] = as_now(stored["calibration"])
    assert {key: found[key] for key in stored} == stored
    model = load_model(older / "again")
    assert model.predict("good day sun", older / "posts/pairs/85.jpg") == pytest.approx(WANT)


def test_a_run_of_a_newer_version_is_refused_by_number(older: Path, tmp_path: Path) -> None:
    shutil.copytree(older / "runs/old", tmp_path / "run")
    change(tmp_path / "run/config.json", version=VERSION + 1, classes=...)
    with pytest.raises(ModelError, match=rf"config\.json is of version {VERSION + 1}; this mmsa"):
        load_model(tmp_path / "run")
