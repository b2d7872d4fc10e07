"""``mmsa init``: what it says, writes and refuses; inputs of every kind are in the table."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from mmsa_cache.config.loading import load_settings
from tests.support.command import COMMAND
from tests.support.data_folders import mmsa, noise, saved
from tests.support.inputs.build import csv, files

HEADER = "text,image,label"


def made(folder: Path, *lines: str, header: str = HEADER, name: str = "train.csv") -> Path:
    csv(header, *lines, name=f"posts/{name}")(folder)
    for n in range(3):
        (folder / f"posts/{n}.jpg").write_bytes(saved(noise(n)))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return made(
        tmp_path,
        "so happy today,0.jpg,happy",
        "what a sad day,1.jpg,sad",
        "still sad,,sad",
        header="text,image,mood",
    )


def test_it_shows_what_it_will_read_and_writes_the_settings(work: Path) -> None:
    shown = mmsa(work, "init", "posts", "--column", "label=mood", "--yes")
    assert "posts: layout tables, texts as utf-8." in shown.stdout
    assert "train     3      1    2  train.csv" in shown.stdout
    assert "Columns of train.csv: text is 'text', image is 'image', label is 'mood'" in shown.stdout
    assert "  0, happy, 0.jpg\n    so happy today\n" in shown.stdout
    assert "Note: 1 rows have no picture: [data] missing." in shown.stdout
    assert "Next: mmsa check, mmsa extract --split all, mmsa train." in shown.stderr
    assert (work / "mmsa.toml").read_text() == (
        """# Written by mmsa init.
[data]
root = "posts"
classes = ["happy", "sad"]      # in the order of their codes
missing = "allow"               # 1 rows have no picture; "refuse": they are errors
# note = "…"                    # shown wherever figures from this data are

[data.columns]
label = "mood"

# The encoders; without these lines the defaults.
# [text]
# model = "bert-base-uncased"   # hub name or folder; the default
# [image]
# model = "swinv2_base_window8_256.ms_in1k"  # timm name; the default
"""
    )
    assert json.loads(mmsa(work, "check", "--json").stdout)["ok"]


def test_settings_that_are_there_stay(work: Path) -> None:
    (work / "mmsa.toml").write_text("seed = 1\n")
    refused = mmsa(work, "init", "posts", "--column", "label=mood", "--yes", code=2)
    assert "mmsa.toml is here already; it is never overwritten." in refused.stderr
    assert (work / "mmsa.toml").read_text() == "seed = 1\n"
    (work / "mmsa.toml").unlink()
    (work / "mmsa.toml").symlink_to("elsewhere.toml")
    mmsa(work, "init", "posts", "--column", "label=mood", "--yes", code=2)
    assert not (work / "elsewhere.toml").exists()


def test_a_script_is_not_asked(work: Path) -> None:
    told = mmsa(work, "init", "posts", "--column", "label=mood")
    assert "Nothing was written; --yes writes mmsa.toml without asking." in told.stderr
    found = json.loads(mmsa(work, "init", "posts", "--column", "label=mood", "--json").stdout)
    assert (found["written"], found["layout"], found["classes"]) == (
        False,
        "tables",
        ["happy", "sad"],
    )
    assert not (work / "mmsa.toml").exists()
    again = json.loads(
        mmsa(work, "init", "posts", "--column", "label=mood", "--json", "--yes").stdout
    )
    assert (work / "mmsa.toml").read_text() == again["config"] == found["config"]


def test_a_person_is_asked_on_a_terminal(work: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "init", "posts", "--column", "label=mood"],
        cwd=work,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while b"Write mmsa.toml? [Y/n]: " not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"\n")
    assert process.wait(60) == 0
    os.close(ours)
    assert (work / "mmsa.toml").exists()


@pytest.mark.parametrize(("answer", "code"), [(False, 0), (typer.Abort, 130)])
def test_a_person_may_refuse(
    work: Path, monkeypatch: pytest.MonkeyPatch, answer: object, code: int
) -> None:
    def confirm(*_: object, **__: object) -> bool:
        if answer is False:
            return False
        raise typer.Abort  # Ctrl-C

    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("mmsa_cache.cli.init.sys", terminal)
    monkeypatch.setattr("mmsa_cache.cli.init.typer.confirm", confirm)
    mmsa(work, "init", "posts", "--column", "label=mood", code=code)
    assert not (work / "mmsa.toml").exists()


def test_the_encoding_is_told_by_evidence(tmp_path: Path) -> None:
    lines = f"{HEADER}\n好日子,0.jpg,positive\nbad sea,1.jpg,negative\n"
    files({"posts/train.csv": lines.encode("gb18030")}, folder="posts")(tmp_path)
    shown = mmsa(tmp_path, "init", "posts", "--yes")
    assert "texts as gb18030 (could be cp1252)" in shown.stdout
    assert "好日子" in shown.stdout
    assert "another encoding is given with --encoding" in shown.stdout
    assert load_settings(folder=tmp_path, environ={}).data.encoding == "gb18030"


def test_posts_cannot_steer_the_terminal(tmp_path: Path) -> None:
    made(tmp_path, "\x1b[31mred\x1b]0;x\x07,0.jpg,positive", "bad,1.jpg,negative")
    shown = mmsa(tmp_path, "init", "posts")
    assert "\x1b" not in shown.stdout
    assert "\\x1b[31mred" in shown.stdout


def test_class_names_are_written_as_toml_reads_them(tmp_path: Path) -> None:
    made(tmp_path, "a,0.jpg,x\\n", 'b,1.jpg,"é, \'"""', 'c,2.jpg,"#"')
    mmsa(tmp_path, "init", "posts", "--yes")
    classes = load_settings(folder=tmp_path, environ={}).data.classes
    assert classes == ("#", "x\\n", "é, '\"")


def test_what_cannot_be_read_writes_nothing(tmp_path: Path) -> None:
    made(tmp_path, "good,0.jpg,happy", header="body,pic,mood")
    refused = mmsa(tmp_path, "init", "posts", "--yes", code=3)
    assert "no column text, image, label; received ['body', 'pic', 'mood']" in refused.stderr
    assert "--column text=NAME" in refused.stderr
    assert "There is no data folder nowhere" in mmsa(tmp_path, "init", "nowhere", code=3).stderr
    assert not (tmp_path / "mmsa.toml").exists()


def test_pictures_that_are_not_there_are_counted(tmp_path: Path) -> None:
    made(tmp_path, "good,x/0.jpg,positive", "bad,x/1.jpg,negative")
    shown = mmsa(tmp_path, "init", "posts")
    assert "2 pictures of train are not there: x/0.jpg, x/1.jpg." in shown.stdout
    assert "  0, positive, x/0.jpg\n    good\n" in shown.stdout


def test_labels_that_are_no_class_are_counted_apart(tmp_path: Path) -> None:
    made(tmp_path, "good,0.jpg,positive", "bad,1.jpg,negative", "meh,2.jpg,meh")
    found = json.loads(mmsa(tmp_path, "init", "posts", "--json").stdout)
    assert found["splits"][0]["labels"] == {"positive": 1, "negative": 1, "null": 1}
    assert [post["label"] for post in found["posts"]] == ["positive", "negative", "null"]
    assert found["problems"][0].startswith("train.csv:4: unknown label 'meh'; valid: ")


def test_raw_mvsa_shows_how_many_rows_agree(tmp_path: Path) -> None:
    labels = "ID\ttext,image\n0\tpositive,positive\n1\tneutral,negative\n"
    texts = {f"posts/data/{n}.txt": "good day" for n in range(2)}
    files(texts | {"posts/labelResultAll.txt": labels}, folder="posts/data")(tmp_path)
    mmsa(tmp_path, "init", "posts", "--yes")
    assert (
        '# rows = "agreeing"             # of 2 only the 1 rows whose text and picture have the '
        "same label" in (tmp_path / "mmsa.toml").read_text()
    )
