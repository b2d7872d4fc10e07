"""Habits of command lines: terminals, folders below the project's, names that are nearly right."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mmsa_cache import console
from mmsa_cache.cli.main import app
from mmsa_cache.cli.options import complete_run, complete_study
from mmsa_cache.config import project
from mmsa_cache.config.loading import load_settings
from mmsa_cache.errors import SettingsError
from mmsa_cache.escaping import ASCII_FALLBACK
from mmsa_cache.names import unknown_name
from mmsa_cache.version import __version__
from tests.support.command import COMMAND
from tests.support.made_up_run import write_run
from tests.support.small_work import QUICK, call, call_json, make_work, mmsa


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """A working folder with features and two runs, and a folder below it."""
    folder = make_work(tmp_path_factory.mktemp("habits"), text_model)
    call(folder, "train", *QUICK, "--name", "one")
    (folder / "below" / "deep").mkdir(parents=True)
    return folder


def run(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **(env or {})}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment, check=False, **how)


def test_version_and_short_help() -> None:
    for flag in ("--version", "-V"):
        assert CliRunner().invoke(app, [flag]).stdout == f"mmsa {__version__}\n"
    for words in ([], ["search"], ["cache", "ls"]):
        short = CliRunner().invoke(app, [*words, "-h"])
        assert short.exit_code == 0
        assert short.stdout == CliRunner().invoke(app, [*words, "--help"]).stdout
        assert short.stdout == CliRunner().invoke(app, ["help", *words]).stdout


def test_completion_names_verbs_flags_runs_and_studies(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def completed(line: str, words: int) -> list[str]:
        env = {"_MMSA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(words)}
        return CliRunner().invoke(app, [], env=env, prog_name="mmsa").stdout.split()

    assert completed("mmsa tr", 1) == ["train"]
    assert completed("mmsa search --st", 2) == ["--study", "--storage"]
    monkeypatch.chdir(work / "below")
    assert completed("mmsa predict --run ", 3) == ["latest", "best", "one"]
    assert complete_run("o") == ["one"]
    assert complete_study("po") == ["pooled"]
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    shown = CliRunner().invoke(app, ["--show-completion"], prog_name="mmsa").stdout
    assert "_MMSA_COMPLETE=complete_bash" in shown


def test_nothing_heavy_is_imported_for_help_and_completion() -> None:
    code = (
        "import sys, mmsa_cache.cli.main as m\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(m.app, ['search', '--help']).exit_code == 0\n"
        "heavy = {'torch', 'optuna', 'transformers', 'timm', 'h5py', 'numpy', 'huggingface_hub'}\n"
        "print(*sorted(heavy & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout.split() == []


def test_what_a_code_page_lacks_is_written_in_ascii(work: Path) -> None:
    env = {"PYTHONIOENCODING": "cp1252", "LC_ALL": "C"}
    found = run(work / "below", "init", "../posts", env=env, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert b"-----  ----" in found.stdout
    assert b"Traceback" not in found.stderr
    assert "±…─ → αö".encode("cp1252", ASCII_FALLBACK) == b"\xb1\x85- -> \\u03b1\xf6"
    assert "a ─ b".encode("ascii", ASCII_FALLBACK) == b"a - b"


def test_data_for_programs_is_utf_8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", page)
    console.print_data("guid,tag\n情感,positive")
    assert page.buffer.getvalue() == "guid,tag\n情感,positive\n".encode()  # type: ignore[attr-defined]


@pytest.fixture
def closed() -> Iterator[int]:
    """The end of a pipe to write to, whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("arguments", [("--version",), ("cache", "--help")], ids=" ".join)
def test_a_closed_pipe_ends_results_without_a_word(
    tmp_path: Path, closed: int, arguments: tuple[str, ...]
) -> None:
    found = run(tmp_path, *arguments, stdout=closed, stderr=subprocess.PIPE)
    assert (found.returncode, found.stderr) == (console.CLOSED, b"")


def test_messages_that_nobody_reads_do_not_end_the_work(tmp_path: Path, closed: int) -> None:
    (tmp_path / "train.csv").write_text("text,image,label\ngood,,positive\nbad,,negative\n")
    flags = ("--missing", "allow", "--yes")
    found = run(tmp_path, "init", ".", *flags, stderr=closed, stdout=subprocess.PIPE)
    assert found.returncode == 0
    assert (tmp_path / "mmsa.toml").is_file()


@pytest.mark.skipif(os.name != "posix", reason="descriptors are passed as on POSIX")
def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    command = " ".join([*COMMAND, "--version", ">&-", "2>&-"])
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0


def terminal(monkeypatch: pytest.MonkeyPatch, **environ: str) -> io.StringIO:
    """What a terminal is shown from here on."""
    page = io.StringIO()
    human = Console(
        file=page,
        force_terminal=True,
        _environ=environ,
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    monkeypatch.setattr(console, "message_console", human)
    return page


def test_dumb_terminals_get_lines_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(**environ: str) -> str:
        page = terminal(monkeypatch, **environ)
        console.say("error: no", style="red")
        with console.progress("rows", 2, "rows") as advance:
            advance(2, "")
        return page.getvalue()

    plain = shown(TERM="dumb")
    assert "\x1b" not in plain
    assert plain.splitlines()[0] == "error: no"
    assert plain.splitlines()[1].startswith("rows: 2/2 rows")
    assert "\x1b[31m" in shown(TERM="xterm")
    assert "\x1b[31m" not in shown(TERM="xterm", NO_COLOR="1")


MANY = [word for number in range(5) for word in ("--set", f"key{number}=1")]


def test_an_error_takes_five_lines_of_a_terminal_and_is_whole_elsewhere(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = terminal(monkeypatch, TERM="xterm", NO_COLOR="1")
    found = json.loads(mmsa(work, "train", *MANY, "--json", code=2).stdout)
    assert (found["error"], found["exit_code"], len(found["problems"])) == ("SettingsError", 2, 5)
    lines = page.getvalue().splitlines()
    assert [line[:9] for line in lines[1:3]] == ["  - key0:", "  - key1:"]
    assert lines[3] == "  … and 3 more; --json has them all"
    assert len(lines) == 5


def test_of_one_finding_too_many_the_finding_is_shown() -> None:
    error = SettingsError("No.", "Mend.", ["one", "two", "three"])
    assert error.in_lines(2) == str(error) == "No.\n  - one\n  - two\n  - three\n  → Mend."


def test_a_name_that_two_places_have_is_listed_once() -> None:
    assert unknown_name("No", "x", ["one", "two", "one"]).hint == "Known: one, two."


def test_json_is_one_document_where_a_verb_has_a_result_and_fails(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,image,label\ngood,1.jpg,positive\n")
    found = mmsa(tmp_path, "check", ".", "--json", code=3)
    assert json.loads(found.stdout)["ok"] is False
    assert "error: 1 problem(s)" in found.stderr


def test_quiet_leaves_results_and_errors(work: Path) -> None:
    assert "Project:" in mmsa(work / "below", "runs", "ls").stderr
    found = mmsa(work / "below", "runs", "ls", "-q")
    assert (found.stderr, found.stdout.split()[0]) == ("", "run")
    assert mmsa(work, "runs", "show", "on", "--quiet", code=4).stderr.startswith("error: ")
    assert "Figures are" in mmsa(work, "runs", "ls").stderr


def test_a_project_is_found_from_a_folder_below(work: Path) -> None:
    deep = work / "below" / "deep"
    found = mmsa(deep, "predict", "--run", "one", "--split", "train", "--out", "p.csv")
    assert f"Project: {work}" in found.stderr
    assert (deep / "p.csv").is_file()
    assert not (deep / "runs").exists()
    image = ("--text", "good sun", "--image", "../../posts/pairs/1.jpg")
    by_name = call_json(deep, "predict", "--run", "one", *image)
    assert call_json(deep, "predict", "--run", "../../runs/one", *image) == by_name
    assert [r["run"] for r in call_json(deep, "runs", "ls")] == ["one"]
    with contextlib.chdir(deep):
        settings = load_settings(environ={})
        assert (settings.cache.dir, settings.data.root) == (work / "cache", work / "posts")
    assert Path.cwd() != work


def test_paths_of_variables_are_relative_to_where_one_is(work: Path) -> None:
    variables = {"MMSA_CACHE_DIR": "../../cache", "MMSA_DATA_ROOT": "../nil"}
    with contextlib.chdir(work / "below" / "deep"):
        found = CliRunner().invoke(app, ["cache", "ls", "--json"], env=variables)
        assert json.loads(found.stdout)
        said = CliRunner().invoke(app, ["extract"], env=variables).stderr
    assert f"There is no data folder {work / 'below'}/" in said


def test_a_file_above_that_is_of_somebody_else_is_not_used(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(os, "getuid"):
        pytest.skip("files have no owner here")
    monkeypatch.setattr(project.os, "getuid", lambda: 12345)  # type: ignore[attr-defined]
    monkeypatch.setattr(project, "_SYSTEM", 54321)
    assert project.find_project(work / "below") == work / "below"
    assert "belongs to another user: it is not used" in capsys.readouterr().err
    assert project.find_project(work) == work  # where the user went to it


WRONG = [
    (["serach"], 2, "Did you mean 'search'"),
    (["search", "--trails", "3"], 2, "--trials"),
    (["extract", "--split", "trian"], 2, "no split 'trian' (near: train)"),
    (["extract", "--split", "dev"], 2, "no split 'dev' (near: val)"),
    (["extract", "--encoders", "defualt"], 2, "no encoder 'defualt' (near: default)"),
    (["extract", "--device", "gpu"], 2, "--device: device: write auto, cpu, cuda or cuda:N"),
    (["extract", "--tokens", "pol"], 2, "--tokens: extract.tokens: write keep, none or pool:GxG"),
    (["extract", "--image-model", "swinv2_bse_window8_256"], 4, "near: swinv2_base_window8_256"),
    (["extract", "--shards", "9/2"], 2, "Write I/N"),
    (["search", "--study", "defualt"], 2, "no study 'defualt' (near: default)"),
    (["search", "--select", "bets"], 2, "Unknown --select 'bets' (near: best)"),
    (["search", "--outer", "groupd"], 2, "Unknown outer split 'groupd' (near: grouped"),
    (["train", "--study", "bset"], 2, "no study 'bset' (near: best)"),
    (["train", "--study", "best"], 2, "Run mmsa search first."),
    (["train", "--set", "fuson=gated"], 2, "fuson: unknown setting (near: fusion)"),
    (["train", "--set", "fusion=gatde"], 2, "'gatde' (near: gated"),
    (["train", "--set", "loss=fokal"], 2, "'fokal' (near: focal)"),
    (["train", "--set", "text_pool=maen"], 2, "no pool 'maen' (near: mean)"),
    (["train", "--set", "text_encoder=vaader"], 2, "no text encoder 'vaader' (near: vader)"),
    (["train", "--track", "tensorbord"], 2, "Unknown --track 'tensorbord' (near: tensorboard)"),
    (["predict", "--run", "oen", "--split", "test"], 4, "no run 'oen' (near: one)"),
    (["predict", "--run", "one"], 2, "--split test, --text"),
    (["predict", "--run", "one", "--image", "nil.jpg"], 3, "There is no picture nil.jpg."),
    (["evaluate", "--run", "one", "--labels", "nil.csv"], 3, "There is no label file nil.csv."),
    (["evaluate", "--run", "one", "--decide", "acuracy"], 2, "'--decide': 'acuracy' is not one"),
    (["export", "one", "--to", "x", "--format", "onx"], 2, "'onx' (near: onnx)"),
    (["cache", "show", "1x"], 3, "no sample '1x' (near: 1)"),
    (["ablate", "--axis", "fusion=concta"], 2, "'concta' (near: concat)"),
    (["runs", "rm", "latest"], 4, "no run 'latest'"),
    (["runs", "show", "on"], 4, "no run 'on' (near: one)"),
    (["extract", "--data", "nil"], 3, "There is no data folder nil."),
    (["extract", "--data", "post"], 3, "There is no data folder post (near: posts)."),
    (["hlep", "search"], 2, "No such command 'hlep'"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), WRONG, ids=[" ".join(of[0]) for of in WRONG]
)
def test_wrong_turns(work: Path, arguments: list[str], code: int, said: str) -> None:
    """The nearest name, or what to do, in fewer than six lines at the end of what is said."""
    output = mmsa(work, *arguments, code=code).stderr
    assert said in output
    start = re.search(r"^(error|Usage):", output, re.MULTILINE)
    assert start is not None
    message = output[start.start() :].rstrip()
    assert message.count("\n") < 5
    assert len(message) < 700


def test_features_that_are_not_there_get_the_nearest(work: Path) -> None:
    said = mmsa(work, "cache", "prune", "--encoder", "tiny-bert").stderr
    assert "has no features of 'tiny-bert' (near: tiny-bert" in said


def test_wrong_variables_and_keys_get_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text("[text]\nmodle = 'x'\n[encodrs]\n")
    with contextlib.chdir(tmp_path):
        said = CliRunner().invoke(app, ["check"], env={"MMSA_TEXT_MODLE": "x"}).stderr
    assert "mmsa.toml: text.modle: unknown key (near: model)" in said
    assert "mmsa.toml: encodrs: unknown key (near: encoders)" in said
    assert "MMSA_TEXT_MODLE: unknown variable (near: MMSA_TEXT_MODEL" in said


def test_runs_are_listed_chosen_and_removed(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        (tmp_path / "runs").mkdir(exist_ok=True)
        folder = write_run(tmp_path / "runs" / name)
        os.utime(folder / "config.json", (1e9 + number, 1e9 + number))
    (tmp_path / "runs" / ".unfinished-00").mkdir()
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "config.json").write_text("{")
    listed = call_json(tmp_path, "runs", "ls")
    assert [run["run"] for run in listed] == ["bad", "second", "first"]
    assert "malformed" in listed[0]["problem"]
    assert listed[1]["study"] == "quick:7"
    assert listed[1]["fusion"] == "concat"
    assert "second" in call(tmp_path, "runs", "ls")
    best = call_json(tmp_path, "runs", "best")
    assert (best["run"], best["compared"]) == ("second", 2)  # of equal ones the last
    assert call_json(tmp_path, "runs", "show", "best")["changed"] == {}
    assert "command: mmsa train --study quick" in call(tmp_path, "runs", "show", "first")
    assert "The latest run: bad." in mmsa(tmp_path, "runs", "show", code=4).stderr
    assert call_json(tmp_path, "runs", "rm", "bad")[0]["state"] == "would be removed"
    assert (tmp_path / "runs" / "bad").is_dir()
    removed = call_json(tmp_path, "runs", "rm", "bad", "first", "--unfinished", "--yes")
    assert [run["state"] for run in removed] == ["removed"] * 3
    assert [path.name for path in (tmp_path / "runs").glob("[!.]*")] == ["second"]
    assert "know what to remove" in mmsa(tmp_path, "runs", "rm", code=2).stderr


def test_the_best_run_is_that_of_the_inner_rows(tmp_path: Path) -> None:
    from mmsa_cache.runs.folder import RunFolder
    from tests.support.made_up_run import change

    for name, inner in (("low", 0.3), ("high", 0.8), ("other", 0.9)):
        (tmp_path / "runs").mkdir(exist_ok=True)
        folder = write_run(tmp_path / "runs" / name)
        scores = RunFolder(folder).figures.inner
        assert scores is not None
        change(folder / "metrics.json", inner=scores.as_json() | {"macro_f1": inner})
    change(tmp_path / "runs" / "other" / "config.json", seed=3)  # other inner rows
    for number, name in enumerate(("other", "high", "low")):
        os.utime(tmp_path / "runs" / name / "config.json", (1e9 + number, 1e9 + number))
    assert call_json(tmp_path, "runs", "best")["run"] == "high"
    assert "1 others have other inner rows" in mmsa(tmp_path, "runs", "best").stderr
