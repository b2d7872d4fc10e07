"""A search and a run with a password in the address, after which it is looked for everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.lint import ROOT
from tests.support.postgres import running_server
from tests.support.small_work import make_work

SECRET = "hush4711"
STUDY = """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
text_dim = 16
image_dim = 16
[space]
fusion = ["concat", "combine"]
"""


@pytest.mark.faults
def test_no_file_output_or_process_has_it(tmp_path: Path, text_model: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    make_work(work, text_model)
    (work / "studies").mkdir()
    (work / "studies/quick.toml").write_text(STUDY)
    titles: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.create_time() < time.time() - 3:  # it has started itself again
                        titles.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue

    with running_server() as server:
        place = server.fresh("trail").replace("mmsa@", f"mmsa:{SECRET}@")
        flag, variable = {"--storage": place}, {"MMSA_STORAGE": place}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        watching = threading.Thread(target=watch)
        watching.start()
        said = ""
        try:
            for command in (
                ("search", "--study", "quick", "--trials", "1", "--workers", "1", "--json"),
                ("train", "--study", "quick", "--name", "r", "--track", "mlflow", "--json"),
                ("report", "r", "--json"),
                ("doctor", "--json"),
            ):
                by_flag = command[0] == "search"
                result = subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "mmsa_cache",
                        *command,
                        *(sum(flag.items(), ()) if by_flag else ()),
                    ],
                    cwd=work,
                    env=environment | ({} if by_flag else variable),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert result.returncode == 0, (command, result.stderr)
                said += result.stdout + result.stderr
        finally:
            ended.set()
            watching.join()
    assert SECRET not in said
    assert "mmsa:***@127.0.0.1" in said
    files = [path for path in work.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert len(titles) > 1
    assert not [title for title in titles if SECRET in title]


RAY = """
from mmsa_cache.cli.arguments import given_arguments, hide_passwords
hide_passwords()
assert given_arguments()[-1].endswith("@host/db")
from mmsa_cache.native.ray_cluster import ray_cluster
with ray_cluster("local") as ray:
    print(ray._private.state.jobs())
    print(ray._private.worker._global_node.get_session_dir_path())
"""


@pytest.mark.faults
def test_ray_keeps_none(tmp_path: Path) -> None:
    """It notes how each of its jobs was started, by what the list of processes shows."""
    pytest.importorskip("ray")
    (tmp_path / "job.py").write_text(RAY)
    command = [sys.executable, "job.py", "--storage", f"postgresql://me:{SECRET}@host/db"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PGPASSWORD": SECRET}
    said = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    ).stdout
    assert "job.py --storage ***" in said
    assert SECRET not in said
    session = [path for path in Path(said.split()[-1]).rglob("*") if path.is_file()]
    assert session
    assert not [path for path in session if SECRET.encode() in path.read_bytes()]
