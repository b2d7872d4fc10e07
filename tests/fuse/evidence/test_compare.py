"""``mmsa compare``: statistics computed again, and the command on small runs written by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score, recall_score
from typer.testing import CliRunner, Result

from fuse.evidence.compare import RunPredictions, SharedRows, compare_rows, pair_rows
from fuse.evidence.significance import holm, mcnemar
from fuse.figures.predictions import Predictions
from mmsa_cache.cli.main import app
from mmsa_cache.errors import ModelError
from tests.support.made_up_run import config_of

NAMES = ["positive", "neutral", "negative"]


def judged(
    name: str,
    labels: np.ndarray,
    predicted: np.ndarray,
    guids: list[str] | None = None,
    classes: list[str] = NAMES,
) -> RunPredictions:
    """A run of which only the predicted classes count."""
    guids = guids or [f"{row:04d}" for row in range(len(labels))]
    flat = np.full((len(labels), len(classes)), 1 / len(classes))
    return RunPredictions(name, classes, Predictions(guids, labels, predicted, flat))


def pairs_of(shared: SharedRows) -> list[dict[str, Any]]:
    """The pairs of runs that a comparison lists."""
    pairs: list[dict[str, Any]] = compare_rows(shared).as_json()["pairs"]
    return pairs


def invented(rows: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and predictions of two runs that are right on two and three rows of four."""
    rng = np.random.default_rng(5)
    labels = rng.choice(3, rows, p=[0.5, 0.2, 0.3])
    runs = [np.where(rng.random(rows) < p, labels, rng.integers(0, 3, rows)) for p in (0.5, 0.75)]
    return labels, *runs


# --- statistics ---------------------------------------------------------------------------------


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 1 + [False] * 5 + [True] * 9 + [False] * 4)
    second = np.array([False] * 1 + [True] * 5 + [True] * 9 + [False] * 4)
    found = mcnemar(first, second).as_json()
    # 2 · (C(6,0) + C(6,1)) / 2⁶
    assert found == {"only_first_right": 1, "only_second_right": 5, "p_value": 14 / 64}
    assert mcnemar(first, first).p_value == 1
    assert mcnemar(first[:2], second[:2]).p_value == 1, "one row each"


@pytest.mark.parametrize(("few", "many"), [(0, 6), (3, 9), (20, 41), (120, 160)])
def test_mcnemar_in_closed_form(few: int, many: int) -> None:
    first = np.arange(few + many) < few
    rows = few + many
    expected = 2 * sum(math.comb(rows, k) for k in range(few + 1)) / 2**rows
    for one, two in ((first, ~first), (~first, first)):
        assert mcnemar(one, two).p_value == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # sorted: 0.005 · 4, 0.01 · 3, 0.03 · 2, then 0.04 · 1, which is not to be below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.04]) == [0.04]


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """scikit-learn's, of whose call 4,000 take seconds: twice the right over those that have it."""
    counts = [np.bincount(codes, minlength=3) for codes in (labels, predicted)]
    right = np.bincount(labels[labels == predicted], minlength=3)
    return float((2 * right / sum(counts)).mean())


def test_differences_equal_an_independent_computation() -> None:
    labels, first, second = invented()
    record = compare_rows(
        pair_rows([judged("a", labels, first), judged("b", labels, second)])
    ).as_json()
    (pair,) = record["pairs"]
    generator = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    for _ in range(2000):
        rows = generator.integers(0, len(labels), len(labels))
        truth = labels[rows]
        drawn["accuracy"].append((second[rows] == truth).mean() - (first[rows] == truth).mean())
        two, one = (macro_f1(truth, run[rows]) for run in (second, first))
        drawn["macro_f1"].append(two - one)
    for key, values in drawn.items():
        expected = np.percentile(values, [2.5, 97.5])
        assert [pair[key]["low"], pair[key]["high"]] == pytest.approx(expected)
        assert pair[key]["low"] < pair[key]["difference"] < pair[key]["high"]
    assert pair["accuracy"]["first"] == accuracy_score(labels, first)
    assert pair["macro_f1"]["second"] == pytest.approx(f1_score(labels, second, average="macro"))
    assert macro_f1(labels, second) == pytest.approx(f1_score(labels, second, average="macro"))
    recalls = [recall_score(labels, run, average=None) for run in (first, second)]
    changes = [pair["recall"][name]["difference"] for name in NAMES]
    assert changes == pytest.approx(recalls[1] - recalls[0])
    rows = [pair["recall"][name]["rows"] for name in NAMES]
    assert rows == np.bincount(labels).tolist()


def test_a_run_that_mends_rows_gains_a_binomial_share() -> None:
    rows, mended = 500, 60
    labels = np.zeros(rows, np.int64)
    first = (np.arange(rows) < 2 * mended).astype(np.int64)
    second = (np.arange(rows) < mended).astype(np.int64)
    shared = pair_rows([judged("a", labels, first), judged("b", labels, second)])
    found = compare_rows(shared, resamples=20_000).as_json()["pairs"][0]["accuracy"]
    expected = binom.ppf([0.025, 0.975], rows, mended / rows) / rows
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=1.01 / rows)
    alone = compare_rows(shared).as_json()["runs"][0]["intervals"]["accuracy"]
    assert found["high"] - found["low"] < alone["high"] - alone["low"]


def test_equal_runs_do_not_differ() -> None:
    labels, first, _ = invented()
    (pair,) = pairs_of(pair_rows([judged("a", labels, first), judged("b", labels, first)]))
    zeros = {"difference": 0, "low": 0, "high": 0}
    assert all(pair[key].items() >= zeros.items() for key in ("accuracy", "macro_f1"))
    assert pair["mcnemar"]["p_value"] == 1
    assert not any(pair["differing"].values())


def test_the_order_of_runs_rows_and_classes_does_not_count() -> None:
    labels, first, second = invented()
    guids = [f"{row:04d}" for row in range(len(labels))]
    (one,) = pairs_of(pair_rows([judged("a", labels, first), judged("b", labels, second)]))
    order = np.random.default_rng(1).permutation(len(labels))
    code = np.array([2, 1, 0])  # by the reversed names
    shuffled = judged(
        "b", code[labels][order], code[second][order], [guids[row] for row in order], NAMES[::-1]
    )
    (two,) = pairs_of(pair_rows([shuffled, judged("a", labels, first)]))
    for key in ("accuracy", "macro_f1"):
        assert two[key]["difference"] == pytest.approx(-one[key]["difference"])
        assert two[key]["low"] == pytest.approx(-one[key]["high"])
    assert two["mcnemar"]["p_value"] == one["mcnemar"]["p_value"]
    assert len(two["differing"]["both_wrong"]) == len(one["differing"]["both_wrong"])


def test_both_decision_rules_are_compared_and_the_groups_that_runs_tell_are_drawn() -> None:
    labels, first, second = invented()
    groups = np.arange(300) // 3
    newer, older = judged("a", labels, first), judged("b", labels, second)
    told = replace(
        newer.predictions, groups=groups, decided={"accuracy": first, "macro_f1": second}
    )
    shared = pair_rows([replace(newer, predictions=told), older])
    found = compare_rows(shared, resamples=80)
    assert found.drawn == "duplicate groups"
    (pair,) = found.pairs
    # The older run has one decision for both rules, here that of the newer one for macro-F1.
    assert pair.decisions["accuracy"]["accuracy"] == pair.accuracy
    assert pair.decisions["accuracy"]["macro_f1"] == pair.macro_f1
    assert pair.decisions["macro_f1"]["macro_f1"].difference == 0
    own = found.runs[0].decisions["macro_f1"]
    assert own.accuracy == accuracy_score(labels, second)
    assert own.macro_f1 == pytest.approx(f1_score(labels, second, average="macro"))
    again = compare_rows(pair_rows([newer, older]), groups=groups, resamples=80)
    assert again.pairs[0].accuracy == pair.accuracy
    assert not again.pairs[0].decisions, "no run tells two rules"
    assert compare_rows(pair_rows([newer, older]), resamples=80).drawn == "rows"


def test_only_rows_that_all_runs_judged_count() -> None:
    labels, first, second = invented(6)
    runs = [
        judged("a", labels[:5], first[:5], ["a", "b", "c", "d", "e"]),
        judged("b", labels[1:], second[1:], ["b", "c", "d", "e", "f"]),
        judged("c", labels[[4, 1]], first[[4, 1]], ["e", "b"]),
    ]
    shared = pair_rows(runs)
    assert shared.guids == ["b", "e"]
    assert shared.left_out == [3, 3, 0]
    assert shared.labels.tolist() == labels[[1, 4]].tolist()
    assert shared.predicted.tolist() == [run[[1, 4]].tolist() for run in (first, second, first)]


def test_runs_that_do_not_go_together_are_refused() -> None:
    labels, first, _ = invented(15)
    one = judged("a", labels, first)
    with pytest.raises(ModelError, match="do not tell the same classes apart") as caught:
        pair_rows([one, judged("b", labels, first, classes=["x", "neutral", "negative"])])
    assert caught.value.problems == [
        "a: positive, neutral, negative",
        "b: x, neutral, negative",
    ]
    with pytest.raises(ModelError, match="No row was judged by all of a, b"):
        pair_rows([one, judged("b", labels, first, [f"other {row}" for row in range(15)])])
    with pytest.raises(ModelError, match="the tags of 15 row") as caught:
        pair_rows([one, judged("b", (labels + 1) % 3, first)])
    there, here = NAMES[(labels[0] + 1) % 3], NAMES[labels[0]]
    assert caught.value.problems[0] == f"0000: {here} in a, {there} in b"
    assert len(caught.value.problems) == 10


# --- the command --------------------------------------------------------------------------------

TAGS = {str(row + 1): NAMES[row // 2] for row in range(6)}
A = TAGS | {"2": "neutral", "4": "positive", "6": "positive"}
B = TAGS | {"4": "negative", "5": "neutral"}


def write_run(
    name: str,
    predicted: Mapping[str, str],
    tags: Mapping[str, str] = TAGS,
    classes: list[str] = NAMES,
    **config: Any,
) -> None:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(classes, **config)))
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["guid", "tag", "predicted", *(f"p_{label}" for label in classes)])
        for guid, label in predicted.items():
            writer.writerow([guid, tags[guid], label, *(float(c == label) for c in classes)])


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mmsa(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["compare", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_two_runs_as_json() -> None:
    write_run("a", A, notes=["made up"])
    write_run("b", B | {"7": "neutral"}, TAGS | {"7": "neutral"}, notes=["made up"])
    result = mmsa("a", "runs/b", "--json")
    record = json.loads(result.stdout)
    assert "1 row(s) of runs/b are left out" in result.stderr
    assert record["rows"] == 6
    assert record["notes"] == ["made up"]
    assert [run["rows_left_out"] for run in record["runs"]] == [0, 1]
    (pair,) = record["pairs"]
    assert pair["accuracy"]["difference"] == pytest.approx(1 / 6)
    assert pair["mcnemar"] == {
        "only_first_right": 1,
        "only_second_right": 2,
        "p_value": 1.0,
        "p_holm": 1.0,
    }
    assert {k: [r["guid"] for r in rows] for k, rows in pair["differing"].items()} == {
        "only_first_right": ["5"],
        "only_second_right": ["2", "6"],
        "both_wrong": ["4"],
    }
    assert pair["differing"]["both_wrong"][0] == {
        "guid": "4",
        "tag": "neutral",
        "first": "positive",
        "second": "negative",
    }


def test_two_runs_as_text() -> None:
    write_run("a", A, notes=["made up"])
    write_run("b", B)
    result = mmsa("a", "b", "--list", "1")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "a b difference 95% interval"
    assert lines[2].startswith("accuracy 0.5000 0.6667 +0.1667 ")
    assert "recall of positive (2 rows) 0.5000 1.0000 +0.5000" in lines
    assert (
        "They differ on 4 of 6 rows: only a right (1), only b right (2), "
        "both wrong in different ways (1)."
    ) in lines
    assert "Exact McNemar test of equal accuracy: p = 1." in lines
    assert "only b right 2 positive neutral positive" in lines
    assert not any(line.startswith("only b right 6") for line in lines)
    assert "6 rows judged by every run; intervals from 2000 resamples of rows" in lines[-1]
    assert "Note: made up." in result.stderr


def test_many_runs_are_corrected_for_their_number() -> None:
    guids = [f"{row:03d}" for row in range(90)]
    tags = {guid: NAMES[row % 3] for row, guid in enumerate(guids)}
    for name, right in (("low", 30), ("middle", 45), ("high", 80)):
        wrong = {guid: NAMES[(row + 1) % 3] for row, guid in enumerate(guids) if row >= right}
        write_run(name, tags | wrong, tags)
    record = json.loads(mmsa("low", "middle", "high", "--json").stdout)
    tests = [(p["first"], p["second"], p["mcnemar"]) for p in record["pairs"]]
    assert [test[:2] for test in tests] == [
        ("low", "middle"),
        ("low", "high"),
        ("middle", "high"),
    ]
    # k rows that one run alone gets right: p = 2 / 2^k
    found = [test["p_value"] for *_, test in tests]
    assert found == pytest.approx([2.0**-14, 2.0**-49, 2.0**-34])
    corrected = [test["p_holm"] for *_, test in tests]
    assert corrected == pytest.approx([2.0**-14, 3 * 2.0**-49, 2 * 2.0**-34])
    shown = mmsa("low", "middle", "high").stdout
    assert "middle − low" in shown
    assert f"{2.0**-14:.3g}" in shown
    accuracies = {line.split()[0]: line.split()[1] for line in shown.splitlines()[2:5]}
    assert accuracies == {"low": "0.3333", "middle": "0.5000", "high": "0.8889"}


def test_duplicates_are_resampled_together(work: Path) -> None:
    pairs = work / "posts" / "pairs"
    pairs.mkdir(parents=True)
    guids = [str(row) for row in range(1, 61)]
    tags = {guid: NAMES[row // 3 % 3] for row, guid in enumerate(guids)}
    for row, guid in enumerate(guids):  # three posts of each text
        (pairs / f"{guid}.txt").write_text(f"post number {row // 3}")
        Image.new("RGB", (8, 8), (row, 0, 0)).save(pairs / f"{guid}.png")
    rows = "".join(f"{guid},{tag}\n" for guid, tag in tags.items())
    (work / "posts/train.txt").write_text("guid,tag\n" + rows)
    settings = {"data": {"root": str(work / "posts")}}
    wrong = {guid: NAMES[(row // 3 + 1) % 3] for row, guid in enumerate(guids) if row < 30}
    write_run("a", tags | wrong, tags, settings=settings)
    write_run("b", tags, tags)
    apart, together = (
        json.loads(mmsa("a", "b", "--json", *flags).stdout) for flags in ((), ("--grouped",))
    )
    assert [r["drawn"] for r in (apart, together)] == ["rows", "duplicate groups"]
    width, wider = (
        r["pairs"][0]["accuracy"]["high"] - r["pairs"][0]["accuracy"]["low"]
        for r in (apart, together)
    )
    # a third as many independent posts: √3 times as wide
    assert wider / width == pytest.approx(math.sqrt(3), rel=0.15)
    lost = mmsa("b", "a", "--grouped", code=2).stderr
    assert "Neither a data folder is set nor does cache hold the split train." in lost
    (work / "posts/train.txt").write_text("guid,tag\n" + "".join(rows.splitlines(True)[1:]))
    missing = mmsa("a", "b", "--grouped", code=3).stderr
    assert "1 judged guid(s) of a are not in the data" in missing
    assert "  - 1\n" in missing


def test_wrong_use_ends_with_2() -> None:
    write_run("a", A)
    write_run("b", B)
    assert "One run cannot be compared" in mmsa("a", code=2).stderr
    assert "runs/a is a" in mmsa("a", "b", "runs/a", code=2).stderr
    mmsa(code=2)


def test_runs_that_cannot_be_compared_end_with_4() -> None:
    write_run("a", A)
    write_run("b", B)
    assert "There is no run 'c'" in (lacking := mmsa("a", "c", code=4).stderr)
    assert "Known: a, b" in lacking
    write_run("tags", B, TAGS | {"3": "positive"})
    assert "3: neutral in a, positive in tags" in mmsa("a", "tags", code=4).stderr
    write_run("yes-no", {"1": "yes"}, {"1": "yes"}, ["yes", "no"])
    assert "yes-no: yes, no" in mmsa("a", "yes-no", code=4).stderr
    write_run("elsewhere", {"9": "neutral"}, {"9": "neutral"})
    assert "No row was judged by all of a, elsewhere" in mmsa("a", "elsewhere", code=4).stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: (run / "predictions.csv").unlink(), "predictions.csv cannot be read"),
        (lambda run: (run / "predictions.csv").write_text(""), "expected the header guid,tag"),
        (
            lambda run: (run / "predictions.csv").write_text(
                (run / "predictions.csv").read_text() + "1,positive,positive,1,0,0\n"
            ),
            "the guid '1' is there twice",
        ),
        (lambda run: (run / "config.json").write_text("{}"), "classes: missing"),
        (lambda run: (run / "config.json").write_text("[]"), "valid dictionary"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is malformed"),
    ],
)
def test_damaged_runs_are_named(change: Any, said: str) -> None:
    write_run("a", A)
    write_run("b", B)
    change(Path("runs/b"))
    shown = mmsa("a", "b", code=4).stderr
    assert said in shown
    assert str(Path("runs/b")) in shown
