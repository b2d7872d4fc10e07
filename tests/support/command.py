"""mmsa as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mmsa_cache.cli.main import main
from tests.support.faulty import fork

COMMAND = [sys.executable, "-W", "error::UserWarning:mmsa_cache", "-m", "mmsa_cache"]


def kill_when(done: Callable[[], bool], folder: Path, *arguments: str) -> None:
    """Starts ``mmsa ARGUMENTS`` in a fork, which has all that is imported here; SIGKILL ends it.

    Args:
        done: Whether it has come far enough to be killed.
        folder: Where it works, and leaves what it says, ``log.txt``.
        arguments: Of ``mmsa``.
    """

    def work() -> None:
        os.chdir(folder)
        sys.argv = ["mmsa", *arguments]
        main()

    log = folder / "log.txt"
    pid = fork(work, log)
    deadline = time.monotonic() + 120
    while not done():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), f"it ended by itself: {log.read_text()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
