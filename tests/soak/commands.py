"""``mmsa`` as processes that something is done to."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.support.fork_server import ForkServer

MODULES = (
    "extraction.extract",
    "search.search",
    "train.train",
    "predict.predict",
    "cache.prune",
    "cache.verify",
    "hub.push",
    "hub.pull",
)
_SECONDS = 300.0
"""Of any command at most."""
_ENDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Commands:
    """Runs commands in a folder; some are killed, or run twice at once.

    Args:
        folder: Where.
        chance: Draws what is done to them, and when.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self._chance = chance
        self._server = ForkServer(folder, *(f"mmsa_cache.compose.{module}" for module in MODULES))
        self._usual: dict[str, float] = {}
        """Verb → seconds that it took undisturbed."""
        self.done: Counter[str] = Counter()
        """What was done to commands, how often."""

    @property
    def pid(self) -> int:
        return self._server.pid

    def close(self) -> None:
        self._server.close()

    def run(self, *arguments: str, hurt: Callable[[], object] = lambda: None) -> str:
        """Runs a command until it succeeds; at random it is killed before, or has a twin.

        Args:
            arguments: Of ``mmsa``.
            hurt: Called when something was done to it, before it is given again.

        Returns:
            What was done to it.
        """
        fate = self._chance.choice(["nothing", "nothing", "twin", "end", "end", "end"])
        said = self._server.log.stat().st_size if self._server.log.exists() else 0
        told = ""
        if fate == "end" and arguments[0] in self._usual:
            told = self._end(arguments, said)
            hurt()
        started = time.monotonic()
        pids = [self._server.start(*arguments) for _ in range(1 + (fate == "twin"))]
        codes = [self._wait(pid) for pid in pids]
        self._check(arguments[0], codes, self._server.said(said))
        self.done[f"{arguments[0]}: exit 0"] += len(pids)
        if fate == "twin":
            self.done["two at once"] += 1
            return f"{told} two at once"
        self._usual[arguments[0]] = time.monotonic() - started
        return told

    @staticmethod
    def _check(verb: str, codes: Sequence[int], text: str) -> None:
        """A run or a file that is there, or that another command writes, is refused."""
        refused = {
            "train": ("exists already", "trained by another"),
            "predict": ("Another process",),
        }
        if 2 in codes and any(reason in text for reason in refused.get(verb, ())):
            codes = [code for code in codes if code != 2]
        assert not any(codes), f"{verb} ends with {codes}: {text}"

    def _end(self, arguments: tuple[str, ...], said: int) -> str:
        """Ends a command, or one of its workers, at a random moment."""
        pid = self._server.start(*arguments)
        process = psutil.Process(pid)
        self._until_it_listens(process)
        after = self._chance.uniform(0, 1.2 * self._usual[arguments[0]])
        time.sleep(after)
        worker = "--workers" in arguments and self._chance.random() < 0.5
        number = signal.SIGKILL if worker else self._chance.choice(_ENDS)
        victim = process
        with contextlib.suppress(psutil.NoSuchProcess):
            while worker and process.status() != psutil.STATUS_ZOMBIE and not process.children():
                time.sleep(0.01)
            if workers := process.children() if worker else []:
                victim = self._chance.choice(workers)
            victim.send_signal(number)
        code = self._wait(pid)
        whom = "itself" if victim is process else "a worker"
        wanted = {signal.SIGKILL: {0, -signal.SIGKILL}}.get(number, {0, 130})
        if victim is not process:
            wanted = {0}
        assert code in wanted, (
            f"{arguments}, {number.name} of {whom}: exit code {code}: {self._server.said(said)}"
        )
        text = self._server.said(said)
        assert "Traceback" not in text, text
        self.done[f"{arguments[0]}: {number.name} of {whom}"] += 1
        return f"{number.name} of {whom} after {after:.2f} s → {code},"

    def _until_it_listens(self, process: psutil.Process) -> None:
        """Until it takes SIGTERM as Ctrl-C, or has ended."""
        deadline = time.monotonic() + _SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                status = Path(f"/proc/{process.pid}/status").read_text()
                caught = int(status.partition("SigCgt:")[2].split()[0], 16)
                if caught >> (signal.SIGTERM - 1) & 1 or "State:\tZ" in status:
                    return
                time.sleep(0.002)

    def _wait(self, pid: int) -> int:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return self._server.wait(pid)
            except psutil.NoSuchProcess:
                return self._server.wait(pid)
            time.sleep(0.01)
        stacks = [p.cmdline() for p in psutil.Process(pid).children(recursive=True)]
        os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"a command hangs: {stacks}: {self._server.said()[-3000:]}")

    def left(self) -> list[int]:
        """Processes of commands that have ended; they have some seconds to end too."""
        deadline = time.monotonic() + 20
        while left := [p.pid for p in psutil.process_iter() if self._is_ours(p)]:
            if time.monotonic() > deadline:
                return left
            time.sleep(0.05)
        return []

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            here = process.cwd() == str(self.folder)
            return here and process.pid not in (self.pid, os.getpid())
        return False
