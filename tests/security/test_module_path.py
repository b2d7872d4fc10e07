"""Python files in the working folder are never run: not by mmsa, not by what it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsa_cache import module_path
from tests.support.small_work import QUICK, make_work

NAMES = (
    # what Python's own start of a process, multiprocessing and its tracker import
    *("signal", "random", "json", "typing", "pickle", "socket", "struct", "copyreg"),
    *("threading", "traceback", "linecache", "tempfile", "selectors"),
    *("sitecustomize", "usercustomize", "readline"),
    # what mmsa imports, and what libraries look for
    *("typer", "rich", "numpy", "torch", "optuna", "sqlalchemy", "sqlite3", "sklearn", "joblib"),
    *("extract", "fuse", "apex", "flash_attn", "kernels", "cupy", "alembic", "greenlet"),
)
TAKEN_BEFORE = ("importlib", "warnings", "contextlib", "collections", "functools", "mmsa_cache")
"""Among what ``python -m`` without -P imports before any line of mmsa runs."""
CONSOLE_SCRIPT = """import sys
from mmsa_cache.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """A working folder in which the name of every module is taken."""
    work = make_work(tmp_path_factory.mktemp("work"), text_model)
    (work / "studies").mkdir()
    (work / "studies/one.toml").write_text(
        '[protocol]\nouter = "grouped"\nfolds = 2\n[fixed]\nepochs = 1\ntext_dim = 16\n'
        'image_dim = 16\nhead = "12"\n[space]\ndropout = [0.1, 0.2]\n'
    )
    for name in NAMES:
        plant(work, name)
    return work


def plant(work: Path, name: str) -> None:
    content = f"open({str(work / 'touched')!r}, 'a').write(__name__ + chr(10))\n"
    (work / f"{name}.py").write_text(content)


def ran(work: Path, *command: str | Path, **environ: str) -> None:
    """Runs a command in the folder and shows that nothing there was run."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    touched = work / "touched"
    assert not touched.exists(), touched.read_text()
    assert result.returncode == 0, result.stderr


def test_a_search_and_its_worker_run_nothing(work: Path) -> None:
    search = ("search", "--study", "one", "--trials", "1", "--workers", "1")
    ran(work, "-m", "mmsa_cache", *search)
    for name in TAKEN_BEFORE:
        plant(work, name)
    ran(work, "-P", "-m", "mmsa_cache", "--help")


@pytest.mark.faults
def test_an_ablation_by_the_console_script_runs_nothing(work: Path, tmp_path: Path) -> None:
    script = tmp_path / "mmsa"
    script.write_text(CONSOLE_SCRIPT)
    for name in TAKEN_BEFORE:
        plant(work, name)
    ran(work, script, "ablate", "--axis", "fusion=concat,combine", *QUICK, "--workers", "2")


PROBE = """
import runpy, sys
runpy.run_path(sys.argv[1])["drop_working_folder"]()  # as long as nothing else is imported

import json, multiprocessing, subprocess
from multiprocessing import resource_tracker

def path(pipe):
    import signal
    pipe.send([signal.__file__, *sys.path])

if __name__ == "__main__":
    found = [sys.path]
    resource_tracker.ensure_running()
    for way in ("spawn", "forkserver"):
        context = multiprocessing.get_context(way)
        ours, theirs = context.Pipe()
        process = context.Process(target=path, args=(theirs,))
        process.start()
        found.append(ours.recv())
        process.join()
    code = "import sys, json; print(json.dumps(sys.path))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    found.append(json.loads(started.stdout))
    print(json.dumps(found))
"""


@pytest.mark.parametrize("declared", ["", ":", "{here}", "{here}:/nowhere", "/nowhere::"])
def test_no_started_process_has_the_folder_on_its_path(tmp_path: Path, declared: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "signal.py").write_text("raise SystemExit('run')\n")
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    result = subprocess.run(
        [sys.executable, probe, module_path.__file__],
        cwd=here,
        env={**os.environ, "PYTHONPATH": declared.format(here=here)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    paths = json.loads(result.stdout)
    assert len(paths) == 4
    for path in paths:
        assert {"", str(here), "."}.isdisjoint(path)


def test_an_interpreter_that_would_not_tell_its_children_is_refused(tmp_path: Path) -> None:
    for flags, code in ((["-E"], 2), (["-I"], 0), (["-E", "-P"], 0)):
        result = subprocess.run(
            [sys.executable, *flags, "-m", "mmsa_cache", "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (result.returncode, "-P too" in result.stderr) == (code, code == 2), result.stderr
