"""Workers of scripts without a guard, of ``python -c`` and of standard input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os
print("ran", flush=True)
from mmsa_cache.compose.bench.cost import run_in_process
from mmsa_cache.native.processes import prepare_forks, start_process
prepare_forks("string")
for device in ("cpu", "cuda"):  # forked by a server, spawned
    process = start_process(os.mkdir, (device,), device, "string")
    process.join()
    assert process.exitcode == 0, device
run_in_process(os.mkdir, "alone")
class Own: pass
assert __import__("__main__").Own is Own
"""

FROZEN = """
import gc
from mmsa_cache.native.processes import start_process
for device in ("cpu", "cuda"):  # forked by a server, spawned
    code = "import gc, os; os.mkdir(f'{name} {gc.get_freeze_count() > 1000}')"
    process = start_process(exec, (code, {"name": device}), device, "string")
    process.join()
print(gc.get_freeze_count())
"""


def test_objects_that_forks_share_are_not_collected(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FROZEN]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("0\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"cpu True", "cuda False"}


@pytest.mark.parametrize("way", ["my script.v2.txt", "-m", "-c", "-"])
def test_workers_do_not_run_the_callers_script(tmp_path: Path, way: str) -> None:
    name = "guardless.py" if way == "-m" else "my script.v2.txt"
    (tmp_path / name).write_text(SCRIPT, encoding="utf-8")
    arguments = {"-m": ["-m", "guardless"], "-c": ["-c", SCRIPT]}.get(way, [way])
    run = subprocess.run(
        [sys.executable, *arguments],
        input=SCRIPT if way == "-" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("ran\n", "")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} - {"__pycache__"} == {
        *("cpu", "cuda", "alone")
    }
