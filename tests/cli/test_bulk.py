"""``mmsa predict --data``: new posts from files and from a pipe, interrupted and resumed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmsa_cache.cli.main import app
from mmsa_cache.compose.predict import bulk
from mmsa_cache.compose.predict.partial import PartialPredictions
from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.errors import SettingsError
from tests.support.command import kill_when
from tests.support.data_folders import mmsa
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

CLASSES = ["positive", "neutral", "negative"]
RUN = ("predict", "--run", "r", "--data")
ONE_FOLD = ("--outer", "report", "--folds", "2", "--set", "epochs=1")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("bulk")
    make_pairs(folder / "posts", 72)
    more = "[extract]\nvariants = 'none'\n"
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t", more))
    mmsa(folder, "extract")
    mmsa(folder, "train", "--name", "r", *ONE_FOLD)
    rows = [["", "tweet", "photo", "mood", "id"]]
    for i in range(60, 72):
        text = (folder / "posts" / "pairs" / f"{i}.txt").read_text()
        rows.append([str(i), text, f"posts/pairs/{i}.jpg", "happy", f"n,{i}"])
    rows[3][2] = ""  # a text alone
    write(folder / "new.csv", rows)
    rows[1][2] = "posts/pairs/nil.jpg"
    rows[2][1] = rows[2][2] = ""
    write(folder / "bad.csv", rows)
    return folder


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def want(work: Path) -> list[dict[str, str]]:
    done = mmsa(work, *RUN, "new.csv", "--out", "want.csv")
    assert "12 rows written to want.csv, 0 of them empty" in done.stderr
    assert "labels that are ignored" not in done.stderr
    assert "'mood'" in done.stderr, "a column that is not read is named"
    assert "1 of 12 posts have a text or a picture alone" in done.stderr
    assert "trained on whole pairs only" in done.stderr
    return read(work / "want.csv")


def test_rows_come_in_order_with_probabilities(work: Path, want: list[dict[str, str]]) -> None:
    assert [row["guid"] for row in want] == [f"n,{i}" for i in range(60, 72)]
    assert [*want[0]] == ["guid", "tag", *(f"p_{name}" for name in CLASSES)]
    for row in want:
        found = [float(row[f"p_{name}"]) for name in CLASSES]
        assert sum(found) == pytest.approx(1)
        assert row["tag"] == CLASSES[int(np.argmax(found))]
    assert not (work / "want.csv.part").exists()
    one = ("--text", (work / "posts" / "pairs" / "60.txt").read_text())
    one += ("--image", "posts/pairs/60.jpg", "--json")
    alone = json.loads(mmsa(work, "predict", "--run", "r", *one).stdout)[0]["probabilities"]
    for name in CLASSES:
        assert float(want[0][f"p_{name}"]) == pytest.approx(alone[name], abs=2e-3)


def test_guids_that_a_spreadsheet_would_compute_are_marked_and_counted(work: Path) -> None:
    names = ["id", "text", "img"]
    write(work / "formula.csv", [names, ["=a", "so", "posts/pairs/60.jpg"], ["b", "so", ""]])
    done = mmsa(work, *RUN, "formula.csv", "--out", "formula_out.csv")
    assert "1 guid(s) begin as a formula does" in done.stderr
    assert [row["guid"] for row in read(work / "formula_out.csv")] == ["'=a", "b"]


def test_bad_rows_are_named_before_anything_is_encoded(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(*_: object, **__: object) -> None:
        raise AssertionError("something was encoded")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_posts", encoded)
        failed = mmsa(work, *RUN, "bad.csv", "--out", "bad.csv.csv", code=3)
    assert "nil.jpg: no such file" in failed.stderr
    assert "neither a text nor a picture" in failed.stderr
    assert "--on-bad skip" in failed.stderr
    done = mmsa(work, *RUN, "bad.csv", "--out", "bad.jsonl", "--on-bad", "skip")
    assert "2 of 12 rows are bad and left empty" in done.stderr
    rows = [json.loads(line) for line in (work / "bad.jsonl").read_text().splitlines()]
    assert [row["guid"] for row in rows] == [f"n,{i}" for i in range(60, 72)]
    assert [row["tag"] is None for row in rows] == [True, True, *[False] * 10]
    assert rows[0]["probabilities"] is None
    assert [*rows[2]["probabilities"]] == CLASSES
    mmsa(work, *RUN, "bad.csv", "--out", "empty.csv", "--on-bad", "skip")
    assert read(work / "empty.csv")[1] == {
        "guid": "n,61",
        "tag": "",
        **{f"p_{name}": "" for name in CLASSES},
    }


def test_what_the_store_has_is_not_encoded(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsa_cache.compose.session.session import Session

    def loaded(*_: object) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(Session, "load_encoder", loaded)
    pairs = work / "posts" / "pairs"
    rows = [[(pairs / f"{i}.txt").read_text(), f"posts/pairs/{i}.jpg"] for i in range(9)]
    write(work / "old.csv", [["text", "image"], *rows])
    mmsa(work, *RUN, "old.csv", "--out", "old.out.csv")
    by_split = json.loads(mmsa(work, "predict", "--run", "r", "--split", "train", "--json").stdout)
    for row, same in zip(read(work / "old.out.csv"), by_split[:9], strict=True):
        assert float(row["p_neutral"]) == same["probabilities"]["neutral"]


def test_an_interrupted_file_goes_on_where_it_was(
    work: Path, want: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_WINDOW", 5)
    monkeypatch.setattr(Predictor, "predict_posts", stopping_after(2))
    stopped = mmsa(work, *RUN, "new.csv", "--out", "again.csv", code=130)
    assert "the same command resumes" in stopped.stderr
    assert not (work / "again.csv").exists()
    part = work / "again.csv.part"
    part.write_bytes(part.read_bytes()[:-7])  # a kill in the middle of a row
    monkeypatch.undo()
    monkeypatch.setattr(bulk, "_WINDOW", 5)
    done = mmsa(work, *RUN, "new.csv", "--out", "again.csv")
    assert "9 of 12 posts were predicted before" in done.stderr
    for row, same in zip(read(work / "again.csv"), want, strict=True):
        assert row["guid"], row["tag"] == (same["guid"], same["tag"])
        assert float(row["p_neutral"]) == pytest.approx(float(same["p_neutral"]), abs=2e-3)
    assert not part.exists()


def stopping_after(windows: int):  # type: ignore[no-untyped-def]
    """`Predictor.predict_posts` with a Ctrl-C after some calls."""
    real, calls = Predictor.predict_posts, []

    def predict(self: Predictor, *args: object, **how: object) -> list[list[float]]:
        if len(calls) == windows:
            raise KeyboardInterrupt
        calls.append(1)
        return real(self, *args, **how)  # type: ignore[arg-type]

    return predict


def test_what_was_begun_of_something_else_is_refused(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    first = PartialPredictions(out, {"run": "a"}, 3, force=False)
    first.add(np.full((4, 3), 1 / 3))
    first.close()
    again = PartialPredictions(out, {"run": "a"}, 3, force=False)
    np.testing.assert_array_equal(again.rows, np.full((4, 3), 1 / 3))
    again.add(np.array([[0.5, 0.5, 0.5]]))  # no probabilities
    with again.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(SettingsError, match="Another process writes"):
        again.add(np.full((1, 3), 1 / 3))
    again.close()
    again = PartialPredictions(out, {"run": "a"}, 3, force=False)
    assert len(again.rows) == 4, "rows from the first that is none on are cut off"
    again.close()
    with pytest.raises(SettingsError, match="begun by another run"):
        PartialPredictions(out, {"run": "b"}, 3, force=False)
    anew = PartialPredictions(out, {"run": "b"}, 3, force=True)
    assert not len(anew.rows)
    anew.close()
    anew.path.write_bytes(b'{"ru')  # killed within the first line
    assert not len(PartialPredictions(out, {"run": "a"}, 3, force=False).rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("new.csv",), "no file to write"),
        (("new.csv", "--out", "p.txt"), "no ending"),
        (("posts", "--out", "p.csv"), "several splits: train, test"),
        (("-", "--out", "p.csv"), "standard output"),
        (("new.csv", "--out", "p.csv", "--column", "text=nil"), "no column 'nil'"),
    ],
)
def test_requests_that_are_none(work: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        result = CliRunner().invoke(app, [*RUN, *arguments])
    assert result.exit_code in (2, 3)
    assert said in result.output


def test_posts_of_a_pipe_come_out_as_they_come(work: Path, want: list[dict[str, str]]) -> None:
    text = (work / "posts" / "pairs" / "60.txt").read_text()
    lines = [
        {"guid": "a", "text": text, "image": "posts/pairs/60.jpg"},
        {"image": "posts/pairs/61.jpg"},
        {"text": "good day"},
        {"text": "x", "image": "nil.jpg"},
        {},
    ]
    piped = "\n".join([*map(json.dumps, lines), "no json", ""])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        skipped = CliRunner().invoke(app, [*RUN, "-", "--on-bad", "skip"], input=piped)
        failed = CliRunner().invoke(app, [*RUN, "-"], input=piped)
    assert skipped.exit_code == 0, skipped.output
    rows = [json.loads(line) for line in skipped.stdout.splitlines()]
    assert [row["guid"] for row in rows] == ["a", "2", "3", "4", "5", "6"]
    for name in CLASSES:
        same = float(want[0][f"p_{name}"])
        assert rows[0]["probabilities"][name] == pytest.approx(same, abs=2e-3)
    assert [row["tag"] is None for row in rows] == [False] * 3 + [True] * 3
    assert "line 4: There is no picture nil.jpg" in rows[3]["error"]
    assert "neither a text nor a picture" in rows[4]["error"]
    assert "not JSON" in rows[5]["error"]
    assert "3 posts are bad: 4, 5, 6" in skipped.stderr
    assert failed.exit_code == 3
    assert len(failed.stdout.splitlines()) == 3, "those before the bad one are written"
    assert "line 4" in failed.stderr


def test_hostile_lines_of_a_pipe_are_bad_posts(work: Path) -> None:
    """One that ended the command would take the thousands after it along."""
    lines = [
        r'{"text": "good", "guid": "\ud800"}',
        '{"text": "good", "guid": {"a": []}}',
        r'{"text": "\ud800"}',
        *(
            json.dumps({"image": name})
            for name in ("a" * 5000, "a\0b", "/dev/zero", "..", "new.csv")
        ),
        json.dumps({"text": "good", "guid": None}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        result = CliRunner().invoke(app, [*RUN, "-", "--on-bad", "skip"], input="\n".join(lines))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["guid"] for row in rows] == [str(number) for number in range(1, len(lines) + 1)]
    assert [row["tag"] is None for row in rows] == [True] * (len(lines) - 1) + [False]


def test_a_killed_process_is_resumed(work: Path) -> None:
    header, *rows = csv.reader((work / "new.csv").read_text().splitlines())
    many = [
        [row[0], f"{row[1]} {k}", *row[2:4], f"{row[4]}-{k}"] for k in range(55) for row in rows
    ]
    write(work / "many.csv", [header, *many])
    command = (*RUN, "many.csv", "--out", "many.out.csv")
    part = work / "many.out.csv.part"
    kill_when(lambda: part.exists() and part.stat().st_size >= 1000, work, *command)
    assert not (work / "many.out.csv").exists()
    done = mmsa(work, *command)
    assert "of 660 posts were predicted before" in done.stderr
    assert [row["guid"] for row in read(work / "many.out.csv")] == [row[4] for row in many]
