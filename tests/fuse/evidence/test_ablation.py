"""``mmsa ablate``: its cells, its table against an independent computation, its resuming."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from typer.testing import CliRunner, Result

from fuse.evidence import ablation, parity
from fuse.evidence.cells import Cell, cells
from fuse.evidence.report_figures import BEST, REPORT
from fuse.evidence.tabulate import tabulate
from fuse.evidence.training_plan import TrainingPlan
from fuse.search.pool import TrainingData, WorkerOptions, start_process
from fuse.search.study import StudyConfig
from fuse.search.study_file import find_study, read_study
from fuse.setting import Setting
from mmsa_cache.cli.main import app
from mmsa_cache.compose.ablate import ablate as verb_ablate
from mmsa_cache.compose.ablate import report as ablate_report
from mmsa_cache.compose.ablate.ablate import AblationRequest
from mmsa_cache.compose.search import workers as workers_module
from mmsa_cache.compose.session.session import Session
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.source import BankSource
from mmsa_cache.files.result_store import ResultStore
from mmsa_cache.validation import validate
from tests.support.cached_rows import write_rows
from tests.support.fake_search import (
    GROUPS,
    LABELS,
    NAMES,
    ORIGIN,
    FakeFit,
    FakeSource,
    start_as_on_a_gpu,
    start_thread,
)
from tests.support.faulty import fork, forked


def labels_of(table: list[Cell]) -> list[tuple[str, ...]]:
    return [tuple(cell.labels.values()) for cell in table]


def test_every_combination_stands_once_in_the_order_of_the_axes() -> None:
    space = {"loss": ["ce", "acb"], "alpha": [0.25, 0.5], "beside": [True, False]}
    table = cells(StudyConfig(name="x", space=space, fixed={"text_dim": 64}), ["loss", "alpha"])
    assert labels_of(table)[0] == ("ce", "–")
    table = cells(StudyConfig(name="x", space=space, fixed={"text_dim": 64}), list(space))
    assert labels_of(table) == [
        ("ce", "–", "true"),
        ("ce", "–", "false"),
        *(("acb", alpha, beside) for alpha in ("0.25", "0.5") for beside in ("true", "false")),
    ]
    assert table[2].setting == Setting(
        loss="acb", alpha=0.25, beta=0.75, beside=True, text_dim=64, metric="macro_f1"
    )


def test_one_modality_has_no_fusion() -> None:
    space = {"fusion": ["concat", "combine"], "modality": ["text", "image", "both"]}
    table = cells(StudyConfig(name="x", space=space), list(space))
    assert labels_of(table) == [
        ("–", "text"),
        ("–", "image"),
        ("concat", "both"),
        ("combine", "both"),
    ]
    assert table[1].setting == Setting(modality="image")
    # Where a fusion wants both sides alike, a side alone is as long as it is there.
    table = cells(StudyConfig(name="x", space=space, fixed={"text_dim": 64}), list(space))
    dims = {cell.labels["fusion"]: cell.setting.image_dim for cell in table[2:]}
    assert dims == {"concat": 256, "combine": 64}
    kernel = cells(StudyConfig(name="x", space=space, fixed={"fusion": "kernel"}), ["modality"])
    assert {cell.setting.modality for cell in kernel} == {"text", "image", "both"}


def test_ranges_and_floods_are_refused() -> None:
    space = {"dropout": {"low": 0.1, "high": 0.5}}
    with pytest.raises(SettingsError, match="dropout: a range"):
        cells(StudyConfig(name="x", space=space), ["dropout"])
    many: dict[str, Any] = {key: list(range(2, 30)) for key in ("epochs", "heads", "batch_size")}
    many["fusion"] = ["encoder"]
    with pytest.raises(SettingsError, match="more than 5000"):
        cells(StudyConfig(name="x", space=many), list(many))


def drawn(model: Any, bank: Any, samples: np.ndarray, setting: Setting) -> np.ndarray:
    """Probabilities that follow from the setting and the row; some are wrong."""
    rng = np.random.default_rng([setting.text_dim, int(model.weight.shape[1])])
    noise = rng.random((len(LABELS), len(NAMES)))
    return (noise + (0.02 * setting.text_dim) * np.eye(3)[LABELS])[samples]


SETTINGS = [Setting(text_dim=d, learning_rate=1e-2, epochs=2, keep="last") for d in (8, 16, 32)]


def run(folder: Path, settings: list[Setting] = SETTINGS, **options: Any) -> Any:
    made = ablation.Ablation(
        settings,
        options.pop("how", None) or trainings_of(),
        TrainingData(FakeSource(), LABELS, GROUPS, options.pop("origin", ORIGIN)),
        ResultStore(folder / "shelf"),
        "macro_f1",
        workers=WorkerOptions(
            options.pop("devices", ("cpu",)),
            options.pop("fit", FakeFit(folder)),
            options.pop("predict", drawn),
            options.pop("start", start_thread),
        ),
    )
    if "told" in options:
        options.pop("told").append((len(made.finished), len(made.planned)))
    return made.run(**options)


def trainings_of(**changes: Any) -> TrainingPlan:
    values = {"outer": "grouped", "folds": 2, "seeds": 2, "seed": 1, **changes}
    return TrainingPlan.of(validate(Protocol, values, "Wrong."), LABELS, GROUPS)


def trainings(folder: Path) -> int:
    log = folder / "trainings.txt"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("outer", ["grouped", "stratified-3"])
def test_the_table_equals_an_independent_computation(tmp_path: Path, outer: str) -> None:
    how = trainings_of(outer=outer)
    outcome = run(tmp_path, how=how)
    table = [Cell({"text_dim": str(s.text_dim)}, s) for s in SETTINGS]
    truth = LABELS[how.rows]
    records = tabulate(table, outcome, truth, NAMES, resamples=60, seed=3)
    rows = np.sort(np.concatenate([u.judged for u in how.splits[::4]]))
    assert how.rows.tolist() == rows.tolist()
    assert len(rows) == (120 if outer == "stratified-3" else len(how.splits[0].judged))
    # The same draws as scikit-learn's users would make them: rows with replacement.
    generator = np.random.default_rng(3)
    resamples = [generator.integers(0, len(rows), len(rows)) for _ in range(60)]
    everywhere = np.arange(len(LABELS))
    predicted = {
        s: drawn(torch.nn.Linear(s.text_dim, 1), None, everywhere, s).argmax(1)[rows]
        for s in SETTINGS
    }

    def f1(chosen: np.ndarray, setting: Setting) -> float:
        return float(f1_score(truth[chosen], predicted[setting][chosen], average="macro"))

    whole = np.arange(len(rows))
    for record, setting in zip(records, SETTINGS, strict=True):
        assert record.members == 4
        guess = predicted[setting]
        assert record.accuracy.mean == pytest.approx(accuracy_score(truth, guess))
        assert record.macro_f1.mean == pytest.approx(f1(whole, setting))
        assert record.macro_f1.deviation == pytest.approx(0)
        recall = recall_score(truth, guess, average=None)
        assert [record.recall[n].mean for n in NAMES] == pytest.approx(recall.tolist())
        samples = [f1(chosen, setting) for chosen in resamples]
        want = np.quantile(samples, [0.025, 0.975])
        assert [record.macro_f1.low, record.macro_f1.high] == pytest.approx(want.tolist())
        change = [f1(chosen, setting) - f1(chosen, SETTINGS[0]) for chosen in resamples]
        assert record.change["macro_f1"].low == pytest.approx(np.quantile(change, 0.025))
    assert records[0].accuracy.mean < records[2].accuracy.mean


def test_mean_and_deviation_are_of_single_members() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    members = np.array([[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], [0, 0, 0, 0, 0, 0]])
    setting = Setting()
    record = [ablation.CellTraining(predicted=[], held_out=0.5, parameters=7, seconds=0.5)] * 3
    outcome = ablation.Outcome({setting: members}, {setting: record}, {})
    (cell,) = tabulate([Cell({}, setting)], outcome, truth, NAMES, resamples=50)
    accuracies = [1, 4 / 6, 2 / 6]
    assert cell.accuracy.mean == pytest.approx(np.mean(accuracies))
    assert cell.accuracy.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert cell.recall["negative"].mean == pytest.approx(np.mean([1, 0.5, 0]))
    assert (cell.parameters, cell.seconds) == (7, 1.5)
    outcome = ablation.Outcome({setting: members[:1]}, {setting: record[:1]}, {})
    (cell,) = tabulate([Cell({}, setting)], outcome, truth, NAMES, resamples=50)
    assert cell.accuracy.deviation is None


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = run(tmp_path, told=told)
    again = run(tmp_path, told=told)
    assert trainings(tmp_path) == 12
    made = min((tmp_path / "shelf").glob("*.json"))
    for setting in SETTINGS:
        assert np.array_equal(first.predicted[setting], again.predicted[setting])
    # More seeds take up those there are; a damaged file is made again.
    run(tmp_path, SETTINGS[:1], how=trainings_of(seeds=3), told=told)
    assert trainings(tmp_path) == 14
    made.write_text("{")
    run(tmp_path, told=told)
    assert told == [(0, 12), (12, 12), (4, 6), (11, 12)]
    run(tmp_path, how=trainings_of(seed=2))
    assert trainings(tmp_path) == 15 + 12, "other rows are other trainings"
    run(tmp_path, origin=ORIGIN.model_copy(update={"data": "of other texts"}))
    assert trainings(tmp_path) == 27 + 12, "so are other inputs under the same labels"


class _Counting(FakeFit):
    def __call__(self, setting: Setting, bank: Any, tasks: list[Any], **options: Any) -> Any:
        with (self.folder / "groups.txt").open("a") as log:
            log.write(f"{len(tasks)} ")
        return super().__call__(setting, bank, tasks, **options)


def test_on_a_gpu_what_a_cell_lacks_is_trained_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    wanted = run(tmp_path / "cpu")
    options: dict[str, Any] = {"devices": ["cuda:0"], "start": start_as_on_a_gpu}
    run(tmp_path, SETTINGS[:2], how=trainings_of(seeds=1), fit=_Counting(tmp_path), **options)
    found = run(tmp_path, fit=_Counting(tmp_path), **options)
    assert (tmp_path / "groups.txt").read_text().split() == ["2", "2", "2", "2", "4"]
    for setting in SETTINGS:
        assert np.array_equal(found.predicted[setting], wanted.predicted[setting])
        held_out = [[t.held_out for t in of.trainings[setting]] for of in (found, wanted)]
        assert held_out[0] == held_out[1]


def test_a_failed_setting_leaves_the_others(tmp_path: Path) -> None:
    bad = Setting(text_dim=8, learning_rate=0.5, epochs=2, keep="last")
    outcome = run(tmp_path, [bad, SETTINGS[1]], fit=FakeFit(tmp_path, nan_from=0.1))
    assert set(outcome.predicted) == {SETTINGS[1]}
    table = [Cell({"learning_rate": "0.5"}, bad), Cell({}, SETTINGS[1])]
    with pytest.raises(Exception, match="1 cell") as caught:
        ablation.raise_failures(outcome, table)
    assert "learning_rate 0.5: The loss is nan" in str(caught.value)
    assert len(tabulate(table, outcome, LABELS[trainings_of().rows], NAMES)) == 1


def test_a_kill_loses_only_what_is_in_work(tmp_path: Path) -> None:
    def ablate(seconds: float, kills: int) -> None:
        """In worker processes."""
        outcome = run(tmp_path, fit=FakeFit(tmp_path, seconds, kills), start=start_process)
        found = [predicted.tolist() for predicted in outcome.predicted.values()]
        (tmp_path / "found.json").write_text(json.dumps(found))

    process = fork(lambda: ablate(0.1, 0))
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "shelf").glob("*.json"))) < 3:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    done = len(list((tmp_path / "shelf").glob("*.json")))
    before = trainings(tmp_path)
    assert done < 12
    # The same command goes on, through the death of a worker, and ends as an unbroken one.
    assert forked(lambda: ablate(0, 1)) == 0
    assert trainings(tmp_path) - before == 12 - done + 1
    assert before - done <= 1
    other = tmp_path / "other"
    other.mkdir()
    want = [found.tolist() for found in run(other).predicted.values()]
    assert json.loads((tmp_path / "found.json").read_text()) == want


@pytest.mark.parametrize(
    ("axes", "flags", "said"),
    [
        (["fuson=concat"], [], ["fuson: unknown setting (near: fusion)"]),
        (
            ["fusion=concat,bilinear", "epochs=x,2"],
            [],
            ["'bilinear', valid: ", "epochs: 'x', a whole number is expected"],
        ),
        (["loss=ce,ce"], [], ["loss: a value stands twice"]),
        (["loss"], [], ["loss: write KEY=VALUE,VALUE"]),
        (["loss=ce,acb"], ["loss=ce"], ["loss: an axis and --set"]),
        ([], [], ["There is nothing to compare."]),
    ],
)
def test_wrong_axes_are_all_named(axes: list[str], flags: list[str], said: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        verb_ablate._make_study(AblationRequest(axes, None, flags), 47)
    for part in said:
        assert part in str(caught.value)


def test_a_study_gives_axes_and_what_holds_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/own.toml").write_text(
        '[protocol]\nouter = "grouped"\nmetric = "accuracy"\n[fixed]\nepochs = 3\n'
        '[space]\nloss = ["ce", "acb"]\ntext_dim = [8, 16]\n'
    )
    monkeypatch.chdir(tmp_path)
    plan = verb_ablate._make_study(AblationRequest(["epochs=4,5"], "own", ["text_dim=32"]), 47)
    lists = {key: choice.candidates() for key, choice in plan.space.items()}
    assert lists == {"loss": ["ce", "acb"], "epochs": [4, 5]}
    assert plan.fixed == {"text_dim": 32}
    assert (plan.protocol.outer, plan.metric) == ("grouped", "accuracy")


def test_stopping_on_the_judged_rows_learns_from_all_others() -> None:
    how = trainings_of(stop="judged", folds=1)
    assert how.members == 2
    for unit in how.splits:
        assert unit.validation.tolist() == unit.judged.tolist()
        assert sorted([*unit.train.tolist(), *unit.judged.tolist()]) == list(range(len(LABELS)))
    with pytest.raises(SettingsError, match="holds no fold back"):
        trainings_of(stop="judged")
    with pytest.raises(SettingsError, match="stop: 'never', valid: held-out, judged"):
        trainings_of(stop="never")


def test_the_report_has_a_cell_for_each_of_its_figures() -> None:
    table = parity.report_cells({"epochs": 2}, "cls", "first")
    assert len(table) == 24
    settings = {tuple(cell.labels.values()): cell.setting for cell in table}
    found = settings["attention_concat", "both", "ce"]
    assert (found.text_dim, found.image_dim, found.dropout, found.learning_rate) == (
        128,
        128,
        0.15,
        8e-5,
    )
    assert (found.level, found.epochs, found.image_pool) == ("pooled", 2, "first")
    assert {(s.norm, s.metric) for s in settings.values()} == {("none", "accuracy")}
    study = read_study(find_study("report-table"))
    assert (study.metric, study.fixed["norm"]) == ("accuracy", "none")
    assert (study.fixed["text_pool"], study.fixed["image_pool"]) == ("cls", "first")
    assert (
        settings["attention_concat", "text", "acb"] == settings["attention_combine", "text", "acb"]
    )
    assert all(0 < value < 1 for of in REPORT.values() for f in of.values() for value in f)


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose caches were made by no encoder: what a training reads, and its labels."""
    return tmp_path_factory.mktemp("ablate")


Mmsa = Callable[..., Result]


@pytest.fixture
def mmsa(posts: Path, monkeypatch: pytest.MonkeyPatch) -> Mmsa:
    """Runs a command on made-up features, in this process and its threads."""
    monkeypatch.chdir(posts)
    (posts / "mmsa.toml").write_text('[data]\nnote = "made up"\n')
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 90, p=[0.5, 0.2, 0.3])
    features, rows = [], {}
    for place, modality in enumerate(("text", "image")):
        values = rng.standard_normal((90, 6)) + 1.5 * np.eye(6)[labels + 2 * place]
        folder, rows[modality] = write_rows(posts, values, modality)
        features.append(ModalityFeatures.open(folder, rows[modality]))
    bank = FeatureBank(*features, [f"p{i}" for i in range(90)], labels.tolist())

    @contextlib.contextmanager
    def training_data(*arguments: Any) -> Iterator[TrainingData]:
        yield TrainingData(BankSource.of(bank, rows), labels, np.arange(90), ORIGIN)

    monkeypatch.setattr(workers_module, "WorkerOptions", partial(WorkerOptions, start=start_thread))
    monkeypatch.setattr(verb_ablate, "training_data", training_data)
    monkeypatch.setattr(Session, "encoder_labels", lambda *a: {"text": "T", "image": "I"})
    monkeypatch.setattr(Session, "notes", lambda session, pairs: [session.settings.data.note])
    monkeypatch.setattr(ablate_report, "_first_positions", lambda *a: ("mean", "mean"))

    def call(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--workers", "1"])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


QUICK = ("--set", "epochs=2", "--set", "head=8")


def test_ablate_through_the_command_line(mmsa: Mmsa, posts: Path) -> None:
    flags = ("--axis", "modality=text,both", "--axis", "loss=ce,acb", "--outer", "grouped")
    flags += ("--folds", "2", *QUICK, "--out", "t.csv", "--out", "t.md", "--out", "t.json")
    record = json.loads(mmsa("ablate", *flags, "--json").stdout)
    assert [cell["labels"]["loss"] for cell in record["cells"]] == ["ce", "acb"] * 2
    assert (record["members"], record["trainings"], record["done_before"]) == (2, 8, 0)
    assert sum(record["judged"].values()) == 18
    rows = list(csv.DictReader((posts / "t.csv").read_text().splitlines()))
    for row, cell in zip(rows, record["cells"], strict=True):
        assert float(row["macro_f1_mean"]) == cell["macro_f1"]["mean"]
        assert float(row["recall_neutral_low"]) == cell["recall"]["neutral"]["low"]
        assert row["modality"] == cell["labels"]["modality"]
    assert (posts / "t.md").read_text().count("\n| ") == 6
    assert json.loads((posts / "t.json").read_text()) == record
    shown = mmsa("ablate", *flags[:6], "--folds", "2", *QUICK)
    assert "8 in all, 8 there already" in shown.stderr
    assert "Note: made up." in shown.stderr
    first = record["cells"][0]["accuracy"]
    assert f"{first['mean']:.4f} ± {first['deviation']:.4f}" in shown.stdout
    assert "the ending says" in mmsa("ablate", *flags[:2], "--out", "t.xls", code=2).stderr
    assert "unknown" in mmsa("ablate", "--axis", "los=ce", code=2).stderr


def test_the_report_page_sets_its_figures_beside(mmsa: Mmsa, posts: Path) -> None:
    flags = ("--outer", "grouped", "--seeds", "1", "--set", "epochs=1", "--set", "head=")
    flags += (
        "--set",
        "layers=1",
        "--set",
        "ffn=16",
        "--set",
        "text_dim=16",
        "--set",
        "image_dim=16",
    )
    mmsa("ablate", "report", *flags, "--out", "page/tables.md")
    page = (posts / "page/tables.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {f}" for f in BEST]
    assert "| attention_concat | both | 0.7550 |" in page
    assert "| attention_concat | 0.7462 → 0.7412 |" in page
    assert "> these are not the rows of the report's figures" in page
    assert "Command: `mmsa" in page
    picture = ElementTree.parse(posts / "page/tables.svg").getroot()
    assert picture.attrib["role"] == "img"
    space = "{http://www.w3.org/2000/svg}"
    # Four fusions have both figures in the report, one of them the neutral recalls too.
    assert len(picture.findall(f".//{space}path")) == 2 * 4 + 2 * 1
    assert "(tables.svg)" in page
    record = json.loads(mmsa("ablate", "report", *flags, "--json").stdout)
    assert record["done_before"] == record["trainings"]
    assert set(record["changes"]) == set(BEST)
    assert "Markdown" in mmsa("ablate", "report", "--out", "page.html", code=2).stderr
