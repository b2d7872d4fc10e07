"""What data say stays text: on a terminal, in Markdown, in pages and in CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
import yaml
from rich.console import Console

from fuse.evidence.parity import markdown_table
from mmsa_cache import console
from mmsa_cache.compose.export.card import CardContent, render_card
from mmsa_cache.compose.pages.shell import printable
from mmsa_cache.compose.predict.predict import PredictedRows
from mmsa_cache.compose.search import view as search_view
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.console import format_table, guard_terminal, print_data, print_result, progress, say
from mmsa_cache.escaping import (
    escape_cell,
    escape_controls,
    escape_markdown,
    markdown_code,
    single_line,
    unescape_cell,
)
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.predictions import format_predictions, parse_predictions
from tests.support.data_folders import WORDS, noise, saved
from tests.support.made_up_run import CLASSES, ROWS, change, model_of, write_run
from tests.support.search_progress import make_progress
from tests.support.small_work import mmsa

BELL = "\x1b]0;owned\x07"
TURNED = "\u202egnp.exe"
HOSTILE = f"{BELL}:skull:[red]{TURNED}"
SEEN = "\\x1b]0;owned\\x07:skull:[red]\\u202egnp.exe"


def holds_text_alone(shown: str) -> None:
    """No escape sequence but rich's own colours, nothing turned, no emoji."""
    for found in ("\x1b]", "\x07", "\u202e", "💀"):
        assert found not in shown, shown
    assert SEEN in shown.replace("\n", ""), shown


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as a terminal that takes everything."""
    shown = io.StringIO()
    monkeypatch.setattr(console.message_console, "_file", shown)
    monkeypatch.setattr(console.message_console, "_force_terminal", True)
    monkeypatch.setattr(console.message_console, "_width", 400)
    return shown


def test_what_hides_or_turns_is_written_out() -> None:
    assert escape_controls(HOSTILE) == SEEN
    assert escape_controls("a\tb\nc") == "a\tb\nc"
    assert single_line("a\tb\nc") == "a\\tb\\nc"
    assert escape_controls("\ud800\u200b\x9b\U000e0041\r") == "\\ud800\\u200b\\x9b\\U000e0041\\x0d"
    kept = "caf\u00e9 \u6674\u308c \u0633\u0644\u0627\u0645 \U0001f468\u200d\U0001f469 \u2764\ufe0f"
    assert escape_controls(kept) == kept


def test_messages_and_bars_show_it(terminal: io.StringIO) -> None:
    say(f"There is no run {HOSTILE}.", style="red")
    with progress(HOSTILE, 2, "pairs") as advance:
        advance(1, f"note {HOSTILE}")
    holds_text_alone(terminal.getvalue())
    assert f"note {SEEN}" in terminal.getvalue()


def test_tables_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(format_table(["guid", HOSTILE], [[f"a\nb{HOSTILE}", "1"]]))
    shown = capsys.readouterr().out
    holds_text_alone(shown)
    assert len(shown.splitlines()) == 3
    watched = replace(make_progress(), failures=[(5, HOSTILE)])
    out = Console(width=400, file=io.StringIO(), force_terminal=True)
    out.print(search_view.render_table(HOSTILE, watched))
    assert isinstance(out.file, io.StringIO)
    holds_text_alone(out.file.getvalue())


def test_data_are_exact_but_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_data(HOSTILE)
    assert capsys.readouterr().out == f"{HOSTILE}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_data(HOSTILE)
    assert capsys.readouterr().out == f"{SEEN}\n"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    before = warnings.formatwarning, sys.excepthook, logging.getLogRecordFactory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.excepthook", None)
        guard_terminal()
        yield
    warnings.formatwarning, sys.excepthook = before[:2]
    logging.setLogRecordFactory(before[2])


def test_what_libraries_print_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    with guarded():
        log = logging.getLogger("a library")
        log.addHandler(handler)
        log.warning("skipped %s", HOSTILE)
        holds_text_alone(stream.getvalue())
        try:
            raise ValueError(f"no file {HOSTILE}")
        except ValueError as error:
            stream.truncate(0)
            log.exception("failed")
            holds_text_alone(stream.getvalue())
            sys.excepthook(ValueError, error, error.__traceback__)
        holds_text_alone(capsys.readouterr().err)
        holds_text_alone(warnings.formatwarning(HOSTILE, UserWarning, "a.py", 1, ""))
    log.removeHandler(handler)


def test_wrong_arguments_are_shown(tmp_path: Path) -> None:
    holds_text_alone(mmsa(tmp_path, "compare", f"--{HOSTILE}", code=2).output)
    holds_text_alone(mmsa(tmp_path, "train", HOSTILE, code=2).output)
    holds_text_alone(mmsa(tmp_path, HOSTILE, code=2).output)
    holds_text_alone(mmsa(tmp_path, "predict", "--run", HOSTILE, "--text", "a", code=4).output)
    assert "Usage: " in mmsa(tmp_path, code=2).output
    command = [sys.executable, "-m", "mmsa_cache", "evaluate", "--labels", HOSTILE]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Missing option '--run'" in ended.stderr


def test_names_of_data_and_runs_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "pairs").mkdir(parents=True)
    guid = HOSTILE
    (folder / "pairs" / f"{guid}.txt").write_text(f"{WORDS[0]} {HOSTILE}")
    (folder / "pairs" / f"{guid}.jpg").write_bytes(saved(noise(0))[:100])
    (folder / "train.txt").write_text(f"guid,tag\n{guid},positive\n")
    page = ("--text-model", "gone", "--html", "page.html")
    result = mmsa(tmp_path, "check", "data", *page, code=3)
    holds_text_alone(result.stdout)
    guids = [f"{row}{HOSTILE}" for row in range(ROWS)]
    names = [f"{number}{HOSTILE}" for number in (1, 2)]
    (tmp_path / "runs").mkdir()
    classes = [CLASSES[0], HOSTILE, CLASSES[2]]
    for name in names:
        write_run(tmp_path / "runs" / name, classes, guids)
        change(tmp_path / "runs" / name / "config.json", notes=[f"{HOSTILE}\nerror: forged"])
    shown = mmsa(tmp_path, "compare", *names, "--list", "2").output
    holds_text_alone(shown)
    assert "\nerror: forged" not in shown
    exact = json.loads(mmsa(tmp_path, "compare", *names, "--json").stdout)
    assert HOSTILE in exact["runs"][0]["run"]


# Markdown

MARKUP = '`|<img src=x onerror="a()">**[x](javascript:a())&lt;\n---\nhttps://a www.b.c'


def test_markdown_shows_it_as_it_is() -> None:
    shown = escape_markdown(MARKUP)
    assert not set("`|<>[]*\n") & set(shown)
    assert "://" not in shown
    assert "www." not in shown
    assert markdown_code("mmsa train") == "`mmsa train`"
    assert markdown_code("a ``` `b\n`") == "```` a ``` `b ` ````"
    header, _, row = markdown_table(["a", MARKUP], [[MARKUP, "1"]])
    assert header.count("|") == row.count("|") == 3


def test_the_card_escapes_every_value(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [CLASSES[0], MARKUP, CLASSES[2]])
    change(
        run / "config.json",
        notes=[MARKUP],
        models=[model_of(fusion=MARKUP, level=MARKUP, **{MARKUP: MARKUP})],
        outer=f"report\n---\nlicense: {MARKUP}",
        settings={"data": {"root": "/a", "encoding": "utf-8"}},
        studies=[{"name": MARKUP, "trial": 1, "score": None}],
    )
    change(run / "env.json", packages={MARKUP: MARKUP, "torch": "<script>1</script>"})
    folder = RunFolder(run)
    packages = folder.environment.packages
    inputs: dict[str, list[str | int]] = {MARKUP: [MARKUP, 4]}
    data = DataSettings(root=Path(MARKUP.replace("/", "")))
    made = (MARKUP, folder.record, folder.figures, data, packages, inputs, 0.0)
    text = render_card(CardContent(*made, MARKUP, None, ()))
    _, metadata, *body = text.split("\n---\n")[0], *text[4:].split("\n---\n")
    assert len(body) == 1, "a value ends the metadata"
    found = yaml.safe_load(metadata)
    assert "license" not in found
    assert "<" not in body[0].replace("> **Note:**", "")
    assert "javascript:a()" in body[0]
    assert "](javascript" not in body[0]
    assert "&#60;script&#62;1&#60;/script&#62;" in body[0]
    tables = [line for line in body[0].splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {3, 5, 7}


def test_every_template_escapes_by_itself() -> None:
    """No expression of a template is marked as safe."""
    root = Path(console.__file__).parents[1]
    templates = sorted(root.glob("mmsa_cache/**/*.j2"))
    assert len(templates) == 8
    for path in templates:
        tokens = {
            value
            for _, kind, value in jinja2.Environment().lex(path.read_text("utf-8"))
            if kind == "name"
        }
        assert not tokens & {"safe", "autoescape"}, path


def test_pages_hold_nothing_that_turns_text() -> None:
    page = f"<p>{TURNED} \u2067a\u2069 \x1b[1m \ud800 \U0001f469\u200d\U0001f4bb</p>"
    shown = "<p>\ufffdgnp.exe \ufffda\ufffd \ufffd[1m \ufffd \U0001f469\u200d\U0001f4bb</p>"
    assert printable(page) == shown


# CSV

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''+x", "=", "\uff1d1"]
PLAIN = ["1", "-5", "+4.5e-3", "a=b", "'tis", "", "guid-7", "-0.25"]


def test_a_cell_is_no_formula_and_comes_back() -> None:
    for text in FORMULAS:
        assert escape_cell(text) == f"'{text}"
        assert unescape_cell(escape_cell(text)) == text
    for text in PLAIN:
        assert escape_cell(text) == text
        assert unescape_cell(text) == text


def test_predictions_hold_no_formula() -> None:
    rows = [(guid, [1.0, 0.0]) for guid in [*FORMULAS, "1", "-5"]]
    written = PredictedRows(["positive", "=bad"], rows, ["positive"] * len(rows)).as_csv()
    assert "\n1,positive\n-5,positive\n" in written
    read = list(csv.reader(io.StringIO(written)))
    assert read[0] == ["guid", "tag"]
    assert [row[0] for row in read[1:]] == [f"'{text}" for text in FORMULAS] + ["1", "-5"]
    rows = [("7", [0.0, 1.0]), ('x"y', [1.0, 0.0])]
    ordinary = PredictedRows(["a", "b"], rows, ["b", "a"]).as_csv()
    assert ordinary == 'guid,tag\n7,b\n"x""y",a\n'


def test_a_runs_own_predictions_come_back(tmp_path: Path) -> None:
    classes = [CLASSES[0], "=bad", "-2"]
    guids = [*FORMULAS, *(str(row) for row in range(ROWS - len(FORMULAS)))]
    made = replace(RunFolder(write_run(tmp_path / "run")).predictions, guids=guids)
    text = format_predictions(made, classes)
    assert not [cell for row in csv.reader(io.StringIO(text)) for cell in row if cell[:1] in "=@+"]
    again = parse_predictions(text, classes)
    assert again.guids == guids
    assert again.predicted.tolist() == made.predicted.tolist()
