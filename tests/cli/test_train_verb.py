"""``mmsa train`` and ``predict`` through the command line: groups, blends, kills, missing parts."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fuse.figures.predictions import Predictions
from mmsa_cache.compose.train import run_files
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.predictions import format_predictions, parse_predictions
from tests.support.command import kill_when
from tests.support.small_work import mmsa

QUICK = ("--set", "epochs=2", "--set", "text_dim=16", "--set", "image_dim=16", "--set", "head=12")


def test_a_group_reports_its_spread_and_the_calibration(work: Path, extracted: object) -> None:
    flags = ("--folds", "2", "--seeds", "2", "--outer", "grouped", "--name", "group", *QUICK)
    result = mmsa(work, "train", *flags, "--json")
    assert "Curves" not in result.output
    record = json.loads(result.stdout)
    assert [m["member"] for m in record["members"]] == [1, 2, 3, 4]
    values = [m["outer"]["accuracy"] for m in record["members"]]
    assert record["spread"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert record["spread"]["accuracy"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    config = json.loads((work / "runs/group/config.json").read_text())
    assert config["calibration"] == record["calibration"]
    assert config["models"][0]["setting"]["head"] == "12"
    shown = mmsa(
        work, "train", *flags[:4], "--outer", "stratified-2", "--name", "shown", *QUICK
    ).stdout
    assert "8 single members on outer" in shown
    assert "2 outer parts" in shown
    rows = (work / "runs/shown/predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 120, "a cross-validation judges every row"
    # The final model of a cross-validation has learned every row, though each was judged once.
    for name in ("group", "shown"):
        flags = ("--run", name, "--labels", "posts/train.txt", "--json")
        found = json.loads(mmsa(work, "evaluate", *flags).stdout)
        judged = len((work / f"runs/{name}/predictions.csv").read_text().splitlines()) - 1
        assert found["rows_seen_in_training"] == (120 if name == "shown" else 120 - judged), name
    log = [json.loads(x) for x in (work / "runs/shown/metrics.jsonl").read_text().splitlines()]
    assert {x["member"] for x in log if x["event"] == "epoch"} == set(range(1, 9))
    assert [x["event"] for x in log].count("final") == 1


def test_a_report_that_cannot_be_made_costs_no_run(
    work: Path, extracted: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("of a chart")

    monkeypatch.setattr(run_files, "compose_page", fail)
    result = mmsa(work, "train", "--folds", "2", "--name", "pageless", *QUICK)
    assert "the report cannot be made (ZeroDivisionError: of a chart)" in result.output
    assert "report.html" not in result.output
    monkeypatch.undo()
    mmsa(work, "report", "pageless")
    assert (work / "runs/pageless/report.html").exists()


def test_a_decision_rule_is_kept_and_may_be_changed(work: Path, extracted: object) -> None:
    flags = ("--folds", "3", "--outer", "grouped", "--name", "rule", "--decide", "macro_f1", *QUICK)
    shown = mmsa(work, "train", *flags, "--set", "loss=ce")
    assert "macro_f1 (used)" in shown.stdout
    assert re.search(r"Curves: loss \d.* macro-F1 .*\(mean of 3 members, 2 epochs\)", shown.stderr)
    metrics = json.loads((work / "runs/rule/metrics.json").read_text())
    config = json.loads((work / "runs/rule/config.json").read_text())
    assert config["decide"] == "macro_f1"
    assert {*config["calibration"]} == {"temperature", "biases", "offsets"}
    # What is written of the outer rows is what was scored: every digit, both rules, the groups.
    run = RunFolder(work / "runs/rule")
    kept, labels = run.predictions, run.predictions.labels
    assert -metrics["outer"]["neg_log_loss"] == log_loss(labels, kept.probabilities)
    assert kept.predicted.tolist() == kept.decided["macro_f1"].tolist()
    for rule, codes in kept.decided.items():
        assert metrics["decisions"][rule]["accuracy"] == (codes == labels).mean()
    again = parse_predictions(format_predictions(kept, run.record.classes), run.record.classes)
    for one, other in zip(parts_of(kept), parts_of(again), strict=True):
        np.testing.assert_array_equal(one, other)
    # Offsets that decide otherwise, whatever this small model learned.
    config["calibration"]["offsets"] = [0.0, 0.0, 5.0]
    (work / "runs/rule/config.json").write_text(json.dumps(config))
    by_rule = {}
    for rule in ("accuracy", "macro_f1"):
        asked = ("--run", "rule", "--decide", rule, "--json")
        rows = json.loads(mmsa(work, "predict", *asked, "--split", "test").stdout)
        factors = [1.0, 1.0, math.exp(5)] if rule == "macro_f1" else [1.0] * 3
        for row in rows:
            p = row["probabilities"]
            raised = [value * factor for value, factor in zip(p.values(), factors, strict=True)]
            assert row["tag"] == list(p)[raised.index(max(raised))]
        by_rule[rule] = [row["tag"] for row in rows]
        found = json.loads(mmsa(work, "evaluate", *asked, "--labels", "posts/answers.csv").stdout)
        assert found["decide"] == rule
        assert found["accuracy"] == found["decisions"][rule]["accuracy"]
        assert found["macro_f1"] == found["decisions"][rule]["macro_f1"]
        assert {*found["decisions"]} == {"accuracy", "macro_f1"}
    assert by_rule["accuracy"] != by_rule["macro_f1"]
    own = json.loads(mmsa(work, "predict", "--run", "rule", "--split", "test", "--json").stdout)
    assert [row["tag"] for row in own] == by_rule["macro_f1"]
    wrong = mmsa(work, "predict", "--run", "rule", "--split", "test", "--decide", "f1", code=2)
    assert "macro_f1" in wrong.stderr


def parts_of(kept: Predictions) -> list[object]:
    arrays = [kept.labels, kept.predicted, kept.probabilities, kept.groups]
    return [kept.guids, *arrays, *kept.decided.values()]


def test_one_member_or_members_of_all_rows(work: Path, extracted: object) -> None:
    flags = ("--folds", "2", "--outer", "grouped", *QUICK)
    mmsa(work, "train", "--no-ensemble", "--name", "single", *flags)
    mmsa(work, "train", "--refit", "--name", "whole", *flags)
    from safetensors.numpy import load_file

    for name in ("single", "whole"):
        tensors = load_file(work / "runs" / name / "model.safetensors")
        assert {key.split(".")[1] for key in tensors} == {"0"}
        mmsa(work, "predict", "--run", name, "--split", "test", "--out", f"{name}.csv")
    wrong = mmsa(work, "train", "--refit", "--no-ensemble", *flags, code=2).stderr
    assert "refit" in wrong


def test_studies_of_one_setting_are_averaged(work: Path, extracted: object) -> None:
    fixed = "epochs = 2\nbatch_size = 32\n"
    (work / "studies/net.toml").write_text(
        f'[protocol]\nouter = "grouped"\n[fixed]\n{fixed}text_dim = 16\nimage_dim = 16\nhead = ""\n'
    )
    (work / "studies/kernel.toml").write_text(
        f'[fixed]\n{fixed}fusion = "kernel"\nloss = "ce"\nlandmarks = 30\n'
        'text_pool = "cls+mean"\nimage_pool = "mean"\n'
    )
    flags = ("--study", "net", "--study", "kernel")
    record = json.loads(
        mmsa(work, "train", *flags, "--folds", "2", "--name", "blend", "--json").stdout
    )
    assert [m["setting"] for m in record["members"]] == [1, 1, 2, 2]
    config = json.loads((work / "runs/blend/config.json").read_text())
    assert [m["setting"]["fusion"] for m in config["models"]] == ["concat", "kernel"]
    assert [s["name"] for s in config["studies"]] == ["net", "kernel"]
    cached = json.loads(mmsa(work, "predict", "--run", "blend", "--split", "test", "--json").stdout)
    text = (work / "posts/pairs/125.txt").read_text()
    live = json.loads(
        mmsa(
            work, "predict", "--run", "blend", "--text", text, "--image", "posts/pairs/125.jpg",
            "--json",
        ).stdout
    )  # fmt: skip
    want = next(row for row in cached if row["guid"] == "125")["probabilities"]
    assert live[0]["probabilities"] == pytest.approx(want, abs=2e-3)
    rows = json.loads(mmsa(work, "train", "--summary", *flags, "--json").stdout)
    totals = [row["parameters"] for row in rows if row["part"] == "total"]
    assert len(totals) == 2
    assert sum(r["parameters"] for r in rows) == 2 * sum(totals)
    assert "(batch, 30)" in mmsa(work, "train", "--summary", *flags).stdout


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_half_a_post_is_predicted(work: Path, extracted: object, level: str) -> None:
    name = f"half-{level}"
    flags = ("--set", f"level={level}", "--set", "modality_dropout=0.3", "--set", "beside=true")
    mmsa(work, "train", "--folds", "2", "--outer", "grouped", "--name", name, *flags, *QUICK)
    for part in (("--text", "good day sun"), ("--image", "posts/pairs/125.jpg")):
        found = json.loads(mmsa(work, "predict", "--run", name, *part, "--json").stdout)
        assert sum(found[0]["probabilities"].values()) == pytest.approx(1)
    assert "exit" not in mmsa(work, "predict", "--run", name, "--text", " ", code=3).stdout
    mmsa(work, "predict", "--run", name, code=2)


def test_a_killed_training_goes_on_and_ends_the_same(work: Path, extracted: object) -> None:
    flags = ("--folds", "2", "--outer", "grouped", "--set", "text_dim=32", "--set", "epochs=8")
    flags += ("--set", "patience=8", "--set", "batch_size=8")
    mmsa(work, "train", *flags, "--name", "unbroken")
    # Members are kept when they are done; the kill comes during the second one.
    kept = ".unfinished-*/checkpoint/member-0000*"
    begun = ("train", *flags, "--name", "broken")
    kill_when(lambda: any((work / "runs").glob(kept)), work, *begun)
    assert not (work / "runs/broken").exists()
    again = mmsa(work, *begun).stderr
    assert "Going on from what an interrupted run of the same left." in again
    for name in ("model.safetensors", "metrics.jsonl", "metrics.json", "predictions.csv"):
        one, two = ((work / "runs" / run / name).read_bytes() for run in ("unbroken", "broken"))
        assert one == two, name
    assert not list((work / "runs").glob(".unfinished-*/"))
    assert not (work / "runs/broken/checkpoint").exists()


def test_wrong_settings_are_all_named(work: Path, extracted: object) -> None:
    wrong = mmsa(work, "train", "--set", "fusio=x", "--set", "text_dim=wide", code=2).stderr
    assert "fusio: unknown" in wrong
    assert "text_dim: 'wide', a whole number is expected" in wrong
    wrong = mmsa(work, "train", "--set", "level=words", "--set", "ema=2", code=2).stderr
    assert "level: 'words', valid: pooled, tokens" in wrong
    assert "ema: '2', a number below 1 is expected" in wrong
    assert "Unknown outer split 'luck'" in mmsa(work, "train", "--outer", "luck", code=2).stderr


def test_solved_kernels_are_searched_and_refitted(work: Path, extracted: object) -> None:
    (work / "studies/solved.toml").write_text(
        '[protocol]\nouter = "grouped"\nfolds = 2\n[sampler]\nkind = "random"\n'
        '[fixed]\nfusion = "kernel"\noptimiser = "lbfgs"\nloss = "ce"\ncopies = "one"\n'
        'text_pool = "mean+max+std"\nepochs = 7\n[space]\nkernel = ["rbf", "linear"]\n'
        "ridge = { low = 0.3, high = 3.0, log = true }\nbandwidth = [0.25, 0.5]\n"
    )
    search = ("search", "--study", "solved", "--trials", "1", "--workers", "1")
    result = mmsa(work, *search, "--json", "--dashboard")
    assert "on this machine alone: http://127.0.0.1:" in result.stderr
    found = json.loads(result.stdout)
    assert found["setting"]["epochs"] == 1
    flags = ("--study", "solved", "--single", "--refit", "--name", "solved", "--json")
    record = json.loads(mmsa(work, "train", *flags).stdout)
    assert {member["best_epoch"] for member in record["members"]} == {1}
    # What is solved is refitted unless flags say otherwise; what is not solved is not.
    solved = ("--study", "solved", "--single")
    for name, flags, is_refitted in (
        ("default", solved, True),
        ("folds", (*solved, "--no-refit"), False),
        ("best", (*solved, "--no-ensemble"), False),
        ("trained", ("--folds", "2", *QUICK), False),
    ):
        mmsa(work, "train", "--name", name, *flags)
        config = json.loads((work / "runs" / name / "config.json").read_text())
        assert config["refit"] == is_refitted, name
