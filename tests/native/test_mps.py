"""Sharing of GPUs, with a program in the place of the service's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmsa_cache.native.mps import _CONTEXT, PIPES, PROGRAM, share_gpus

FAKE = """#!/bin/sh
# Runs in the background as long as its pipe is there; tells what it was asked.
place=${CUDA_MPS_PIPE_DIRECTORY:-$DEFAULT_PIPES}
case "$1" in
-d)
    echo "start $CUDA_VISIBLE_DEVICES" >> "$LOG"
    [ -z "$FAILS" ] || exit 1
    : > "$place/control"
    (while [ -e "$place/control" ]; do sleep 0.05; done) &
    ;;
*)
    read -r line
    [ -e "$place/control" ] || { echo "Cannot find the daemon"; exit "${CODE:-1}"; }
    case $line in
    get_default_active_thread_percentage) echo 100.0 ;;
    get_server_list) [ ! -e "$place/server" ] || echo 4711 ;;
    quit)
        echo quit >> "$LOG"
        rm "$place/control"
        [ -z "$HANGS" ] || { echo "hangs $$" >> "$LOG"; exec sleep 60; }
        ;;
    esac
    ;;
esac
"""
CONTEXT = f"""
import os, pathlib
pathlib.Path(os.environ.get("{PIPES}", os.environ["DEFAULT_PIPES"]), "server").touch()
"""
"""Stands for a process that makes a context: the service starts a server for it."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the program was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / PROGRAM
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("DEFAULT_PIPES", str(tmp_path))
    for name in (PIPES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.mark.parametrize("code", ["1", "0"])
def test_a_service_is_started_for_the_block_alone(
    log: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("CODE", code)  # of the program where there is no service
    with share_gpus(CONTEXT) as variables:
        assert variables is not None
        place = Path(variables[PIPES])
        assert place.stat().st_mode & 0o777 == 0o700
        assert PIPES not in os.environ, "this process is no part of it"
        assert log.read_text().split() == ["start"]
    assert log.read_text().split() == ["start", "quit"]
    assert not place.exists()


def test_an_error_within_the_block_ends_the_service(log: Path) -> None:
    with pytest.raises(KeyboardInterrupt), share_gpus(CONTEXT):
        raise KeyboardInterrupt
    assert log.read_text().split() == ["start", "quit"]


def test_the_service_numbers_the_gpus_that_are_visible_anew(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with share_gpus(CONTEXT) as variables:
        assert variables is not None
        assert variables["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert log.read_text().split() == ["start", "2,5", "quit"]


@pytest.mark.parametrize("probe", ["raise SystemExit(1)", "pass", _CONTEXT])
def test_no_context_or_one_beside_the_service_is_no_sharing(log: Path, probe: str) -> None:
    with share_gpus(probe) as variables:
        assert variables is None
    assert log.read_text().split() == ["start", "quit"]


def test_a_service_that_does_not_start(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "1")
    with share_gpus(CONTEXT) as variables:
        assert variables is None


def test_a_service_that_runs_is_used(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control").touch()
    with share_gpus(CONTEXT) as variables:
        assert variables == {}
    with share_gpus("raise SystemExit(1)") as variables:
        assert variables is None, "a service that gives no context"
    (tmp_path / "control").rename(tmp_path / "elsewhere")
    (tmp_path / "pipes").mkdir()
    (tmp_path / "pipes/control").touch()
    monkeypatch.setenv(PIPES, str(tmp_path / "pipes"))
    monkeypatch.setenv("PATH", "")  # as in a container
    with share_gpus(CONTEXT) as variables:
        assert variables == {}
    assert log.read_text() == ""


def test_no_program_is_no_sharing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with share_gpus(CONTEXT) as variables:
        assert variables is None


def test_a_killed_process_leaves_no_service(log: Path) -> None:
    code = "import sys, time; from mmsa_cache.native.mps import share_gpus\n"
    code += "with share_gpus(sys.argv[1]): print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, CONTEXT], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while "quit" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert log.read_text().split() == ["start", "quit"]


def test_a_program_that_does_not_end_is_ended(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGS", "1")
    monkeypatch.setattr("mmsa_cache.native.mps._SECONDS_TO_END", 1.0)
    with share_gpus(CONTEXT) as variables:
        assert variables
    (said,) = (line for line in log.read_text().splitlines() if line.startswith("hangs"))
    status = Path(f"/proc/{said.split()[1]}/stat")
    ended = time.monotonic() + 10
    while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < ended
        time.sleep(0.01)
