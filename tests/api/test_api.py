"""``import mmsa_cache as mmsa``: from posts to predictions, and what wrong arguments are told."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mmsa_cache as mmsa
from fuse.search.pool import WorkerOptions
from mmsa_cache.api.calls import translate_errors
from mmsa_cache.api.wording import in_python_terms
from mmsa_cache.compose.search import workers
from tests.support.fake_search import start_thread
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

TEXT = "good day sun"
QUICK: dict[str, Any] = {"epochs": 2, "text_dim": 16, "image_dim": 16, "head": "12"}
STUDY = """[space]
dropout = [0.1, 0.5]
alpha = { low = 0.1, high = 0.9 }
[fixed]
epochs = 2
text_dim = 16
image_dim = 16
head = "12"
[protocol]
outer = "grouped"
folds = 2
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """Posts, a study, and settings of tiny encoders; a folder below it to work in."""
    folder = tmp_path_factory.mktemp("project")
    make_pairs(folder / "posts", 60)
    more = '[extract]\nvariants = "none"\n'
    data = 'root = "posts"\nnote = "drawn by a test"'
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "mobilenetv2_035", more, data=data))
    for name in ("studies", "notebooks"):
        (folder / name).mkdir()
    (folder / "studies/quick.toml").write_text(STUDY)
    return folder


@pytest.fixture(autouse=True)
def below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command line does, all works in the folder of ``mmsa.toml``."""
    monkeypatch.chdir(project / "notebooks")


@pytest.fixture(scope="module")
def session(project: Path) -> mmsa.Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project / "notebooks")
        return mmsa.extract(split="train")


@pytest.fixture(scope="module")
def study(project: Path, session: mmsa.Session) -> Iterator[mmsa.Study]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project / "notebooks")
        patch.setattr(
            workers, "WorkerOptions", functools.partial(WorkerOptions, start=start_thread)
        )
        yield mmsa.search(session, "quick", trials=3, workers=1, name="mine")


@pytest.fixture(scope="module")
def run(project: Path, study: mmsa.Study) -> mmsa.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project / "notebooks")
        return mmsa.train(study=study, name="one", single=True, decide="macro_f1", alpha=0.3)


def test_a_folder_is_opened_as_the_command_line_does(
    project: Path, session: mmsa.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (session.settings.cache.dir, session.settings.seed) == (project / "cache", 47)
    found = mmsa.open("../cache", data="../posts", device="cpu", seed=3)
    assert found.classes == ("positive", "neutral", "negative")
    assert len(found.bank("train")) == len(found.samples("train")) == 48
    assert (found.settings.data.root, found.settings.seed) == (project / "posts", 3)
    monkeypatch.setenv("MMSA_SEED", "5")
    assert mmsa.open().settings.seed == 5
    assert mmsa.open(seed=6).settings.seed == 6


def test_a_study_is_what_its_database_has(
    project: Path, session: mmsa.Session, study: mmsa.Study
) -> None:
    assert (project / "studies/studies.db").is_file()
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    scores = [trial.score for trial in study.trials if trial.state == "complete"]
    assert study.best.score == max(filter(None, scores))
    assert {*study.best.values} == {"dropout", "alpha"}
    assert study.best.setting["alpha"] == study.best.values["alpha"]
    assert (study.metric, study.protocol.folds, study.importance) == ("macro_f1", 2, [])
    assert study.judged is not None
    assert study.judged.trial == study.best.number
    assert study.notes[0] == "drawn by a test"
    again = mmsa.Study("mine")
    assert again.trials == study.trials
    assert repr([again]) == repr(mmsa.Study.all(session)) == "[Study('mine', 3 trials)]"


def test_a_notebook_shows_objects_as_tables(session: mmsa.Session, study: mmsa.Study) -> None:
    page = session._repr_html_()
    assert "48 rows: positive " in page
    assert "mobilenetv2_035 (random weights)" in page
    assert "Note: drawn by a test" in page
    page = session.bank("train")._repr_html_()
    assert re.search(r"samples</th><td[^>]*>48<", page)
    assert re.search(r">text</th><td[^>]*>tiny-bert[^<]*</td><td[^>]*>\d+</td><td[^>]*>16<", page)
    page = study._repr_html_()
    assert f"trial {study.best.number}</th>" in page
    assert f"macro_f1 {study.best.score:.3f}" in page
    assert f">{study.best.values['dropout']:.3f}<" in page
    assert "Note: drawn by a test" in page


def test_data_are_checked_as_the_command_line_does(project: Path, tmp_path: Path) -> None:
    found = mmsa.check()
    assert found.ok
    assert not found.problems
    assert "Nothing is bad." in repr(found)
    assert mmsa.check("../posts", files=False).ok
    make_pairs(tmp_path / "posts", 8)
    (tmp_path / "posts/pairs/3.jpg").write_bytes(b"")
    bad = mmsa.check(tmp_path / "posts")
    assert not bad.ok
    assert (bad.problems[0].split, bad.problems[0].guid) == ("train", "3")
    assert bad.problems[0].message in repr(bad)


def test_the_trials_are_a_frame(study: mmsa.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(mmsa.SettingsError, match="pandas is not installed"):
        study.frame()

    class DataFrame(list[dict[str, Any]]):
        def set_index(self, name: str) -> dict[int, dict[str, Any]]:
            return {row[name]: row for row in self}

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
    best = study.best
    found = study.frame()[best.number]
    assert found["score"] == best.score
    assert found["alpha"] == best.values["alpha"]


def test_a_run_predicts_and_shows_what_it_found(project: Path, run: mmsa.Run) -> None:
    assert (run.name, run.path) == ("one", project / "runs/one")
    picture = "../posts/pairs/7.jpg"
    probabilities = run.predict_proba(TEXT, picture)
    assert [*probabilities] == run.classes
    assert sum(probabilities.values()) == pytest.approx(1)
    (tag,) = run.model.decide([[*probabilities.values()]])
    assert run.predict(TEXT, picture) == tag
    assert run.model.rule == run.record.decide == "macro_f1"
    assert mmsa.load_model(run).predict(TEXT, picture) == probabilities
    setting = run.record.models[0].setting
    assert (setting["alpha"], setting["beta"], setting["head"]) == (0.3, 0.7, "12")
    outer = run.figures.outer
    assert len(run.predictions.guids) == outer.rows
    assert np.mean(run.predictions.predicted == run.predictions.labels) == outer.accuracy
    assert {epoch.member for epoch in run.history} == {1, 2}
    assert run.notes[0] == "drawn by a test"
    assert run.folder.command == (
        "mmsa.train(study='mine', name='one', single=True, decide='macro_f1', alpha=0.3)"
    )


def test_runs_are_found_by_name_and_by_path(project: Path, run: mmsa.Run) -> None:
    for given in ("one", "latest", "best", "../runs/one", project / "runs/one", run):
        assert mmsa.Run(given).path == run.path
    assert repr(mmsa.Run.all()) == "[Run('one')]"
    assert Path(run) == run.path


def test_the_report_shows_in_a_notebook(run: mmsa.Run) -> None:
    report = run.report()
    assert report.path == run.path / "report.html"
    shown = report._repr_html_()
    assert shown.startswith("<iframe")
    assert 'srcdoc="&lt;!DOCTYPE html' in shown
    assert "<script" not in shown


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: mmsa.open("../cahce"), r"no store '\.\./cahce' \(near: \.\./cache\).*mmsa\.extract\("),
    (lambda: mmsa.open(".."), r"no store '\.\.'.*Known: .*\.\./cache"),
    (lambda: mmsa.open(text_modle="x", sead=1), r"text_modle \(near: text_model.*sead \(near"),
    (lambda: mmsa.open(device="gpu", seed=-1), r"2 setting.*device=: .*'gpu'.*seed=: .*-1"),
    (lambda: mmsa.extract(split="trian"), r"no split 'trian' \(near: train\)"),
    (lambda: mmsa.extract(workers=0), "workers=0: a whole number from 1"),
    (lambda: mmsa.search("quick"), r"session is expected, received 'quick'.*mmsa\.open"),
    (lambda: mmsa.search(study="quik"), r"no study 'quik' \(near: quick\)"),
    (lambda: mmsa.search(study="quick", select="bets"), r"Unknown select= 'bets' \(near: best\)"),
    (lambda: mmsa.search(study="quick", engine="rays"), r"engine cannot be 'rays' \(near: ray\)"),
    (lambda: mmsa.search(study="quick", address="a:1"), "address= is of a Ray.*engine='ray' with"),
    (lambda: mmsa.train(fold=3, dropot=0.1), r"fold \(near: folds\).*dropot \(near: dropout"),
    (lambda: mmsa.train(folds=2.5, seeds=0), "folds=2.5, seeds=0: a whole number"),
    (lambda: mmsa.train(fusion="gatd"), r"fusion: 'gatd' \(near: gated\)"),
    (lambda: mmsa.train(decide="f1"), r"decide cannot be 'f1'.*Valid: accuracy, macro_f1"),
    (lambda: mmsa.train(nested=True, study="best"), "nested= searches anew.*Give study=NAME"),
    (lambda: mmsa.Study("mein"), r"no study 'mein' \(near: mine\)"),
    (lambda: mmsa.Run("one").predict("a", "7.jpg"), r"Give an existing file with image=\."),
    (lambda: mmsa.Run("oen"), r"no run 'oen' \(near: one\)"),
]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_argument_is_named(number: int) -> None:
    call, match = WRONG[number]
    with pytest.raises(mmsa.MmsaError) as found:
        call()
    assert re.search(match, str(found.value), re.DOTALL), str(found.value)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Give --folds 3, or --max-mb.", "Give folds=3, or max_mb=."),
        ("Give --study NAME.", "Give study=NAME."),
        ("Write --set key=value.", "Write key=value."),
        ("Run mmsa search first.", "Run mmsa.search() first."),
        ("Run mmsa extract --split all: it", "Run mmsa.extract(split='all'): it"),
        ("mmsa train --nested --study NAME.", "mmsa.train(nested=True, study=NAME)."),
        ("Run mmsa extract --on-bad skip again.", "Run mmsa extract --on-bad skip again."),
        ("Give --labels FILE, or mmsa check.", "Give --labels FILE, or mmsa check."),
    ],
)
def test_messages_speak_python(said: str, shown: str) -> None:
    assert in_python_terms(said) == shown


def test_what_an_error_quotes_of_data_is_text() -> None:
    with pytest.raises(mmsa.DataError) as found, translate_errors():
        raise mmsa.DataError("a\x1b[2J", "Give --folds 3.", ["postgresql://me:secret@host/\x1b"])
    assert str(found.value).splitlines() == [
        "a\\x1b[2J",
        "  - postgresql://me:***@host/\\x1b",
        "  → Give folds=3.",
    ]


@pytest.mark.faults
def test_a_script_without_a_guard(project: Path, tmp_path: Path) -> None:
    script = tmp_path / "a script.py"
    script.write_text(
        "print('ran')\nimport mmsa_cache as mmsa\n"
        "session = mmsa.extract(workers=2)\n"
        "study = mmsa.search(session, 'quick', trials=4, workers=2, name='script')\n"
        "print(mmsa.train(study=study, single=True).figures.outer.rows)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "ran"
    assert len(done.stdout.splitlines()) == 2
    assert "\x1b" not in done.stderr
