"""``--dry-run`` says what the command itself then does, and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.pairs import make_pairs
from tests.support.small_work import QUICK, call, call_json, mmsa
from tests.support.tiny import tiny_toml


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("dry")
    make_pairs(folder / "posts", 60, 8)
    variants = "[extract]\nvariants = 1\n"
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "mobilenetv2_035", variants))
    (folder / "studies").mkdir()
    (folder / "studies" / "two.toml").write_text(
        '[protocol]\nouter = "grouped"\nfolds = 2\n[fixed]\nepochs = 4\ntext_dim = 16\n'
        "image_dim = 16\nhead = '12'\n[space]\nalpha = [0.25, 0.5, 0.75]\n"
        'fusion = ["concat", "gated"]\n'
    )
    return folder


def files(folder: Path) -> set[Path]:
    """All but the notes of a store that its files were verified."""
    return {path for path in folder.rglob("[!.]*") if path.is_file()}


def test_extraction(work: Path) -> None:
    before = files(work)
    planned = call_json(work, "extract", "--split", "all", "--dry-run")
    assert files(work) == before
    assert {of["split"] for of in planned} == {"train", "test"}
    assert all(of["missing"] == of["rows"] > 0 and of["here"] for of in planned)
    assert all(of["bytes"] > 0 and of["seconds"] >= 0 for of in planned)
    done: list[dict[str, Any]] = call_json(work, "extract", "--split", "all")
    key = ("split", "modality", "encoder")
    computed = {tuple(of[k] for k in key): of["rows_computed"] for of in done}
    assert {tuple(of[k] for k in key): of["missing"] for of in planned} == computed
    for modality in ("text", "image"):
        size = sum(of["bytes"] for of in planned if of["modality"] == modality)
        stored = max(of["bytes"] for of in done if of["modality"] == modality)
        assert size == pytest.approx(stored, rel=0.35)
    again = call_json(work, "extract", "--dry-run")
    assert [of["missing"] for of in again] == [0, 0]


def test_an_encoder_that_is_not_here_is_a_download(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    flags = ("--text-model", "not-here", "--text-weights", "pretrained")
    text, image = call_json(work, "extract", "--dry-run", *flags)
    assert (text["here"], text["bytes"], text["download_bytes"]) == (False, None, None)
    assert image["here"]
    shown = mmsa(work, "extract", "--dry-run", *flags)
    assert "of unknown size" in shown.stdout
    assert "without what is to be downloaded" in shown.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--target", "memory://x"), "looks into the --cache folder"),
        (("--shards", "3/2"), "is no part of the rows"),
        (("--address", "here:1"), "--engine ray"),
    ],
)
def test_flags_that_it_cannot_follow_are_refused(
    work: Path, flags: tuple[str, str], said: str
) -> None:
    assert said in call(work, "extract", "--dry-run", *flags, code=2)


def test_search(work: Path) -> None:
    call(work, "extract")
    before = files(work)
    planned = call_json(work, "search", "--study", "two", "--trials", "3", "--dry-run")
    assert files(work) == before
    assert (planned["parameters"], planned["settings"]) == (2, 6)
    assert (planned["trainings_a_trial"], planned["finished"]) == (2, 0)
    assert planned["measured"] == "3 epochs of concat"
    assert planned["seconds_a_trial"] > 0
    flags = ("--study", "two", "--trials", "2", "--workers", "1")
    found = call_json(work, "search", *flags)
    again = call_json(work, "search", *flags[:2], "--trials", "4", "--dry-run", "--workers", "1")
    assert (again["finished"], again["measured"]) == (2, "2 complete trials")
    assert again["outer_rows"] == found["outer_rows"]
    assert again["seconds"] == pytest.approx(2 * again["seconds_a_trial"], abs=0.2)
    assert "trainings a trial: 2" in call(work, "search", "--study", "two", "--dry-run")


def test_few_rows_choose_fewer_folds(tmp_path: Path, text_model: Path) -> None:
    make_pairs(tmp_path / "posts", 12, 0)
    (tmp_path / "posts" / "test_without_label.txt").unlink()
    none = '[extract]\nvariants = "none"\n'
    (tmp_path / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t", none))
    call(tmp_path, "extract")
    flags = tuple(flag for flag in QUICK if flag not in ("--folds", "2", "--outer", "grouped"))
    found = mmsa(tmp_path, "train", *flags, "--name", "few")
    assert "Note: 2 folds in place of 5: the rarest class has no more" in found.stderr
    assert call_json(tmp_path, "runs", "show", "few")["config"]["folds"] == 2
    said = mmsa(tmp_path, "train", *flags, "--folds", "5", code=2).stderr
    assert "has 2 independent samples, fewer than 5 folds.\n  → Give --folds 2." in said
    said = mmsa(tmp_path, "train", *flags, "--outer", "stratified-5", code=2).stderr
    assert "→ Give --outer stratified-3." in said
    said = mmsa(tmp_path, "train", *flags, "--outer", "grouped", code=2).stderr
    assert "→ Give --outer grouped-3/1." in said
    call(tmp_path, "train", *flags, "--folds", "1", "--name", "single")
