"""Steps at random, the invariants after each, and what came of it."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from mmsa_cache.console import format_table
from tests.support.small_work import call
from tests.support.tiny import make_text_model

from .commands import Commands
from .invariants import Invariants, Usage
from .project import Project
from .steps import MIXTURE, Steps


class Soak:
    """A run of the mixture.

    Args:
        folder: The working folder, empty.
        seed: Draws everything but the moments at which processes are overtaken.
        posts: That there are.
        forks: Whether commands are processes, of which some are killed; else all run in this one.
        address: Of an object store; "": nothing is pushed.
        temporary: The system's folder of temporary files, if nobody else uses it.
        say: Takes a line a step.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        posts: int = 150,
        forks: bool = True,
        address: str = "",
        temporary: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._say, self._chance = say, random.Random(seed)
        self.folder, self.seed = folder, seed
        (folder / "model").mkdir()
        make_text_model(folder / "model")
        self._project = Project(folder, folder / "model", posts, self._chance)
        self.held = Invariants(self._project)
        self.commands = Commands(folder, self._chance) if forks else None
        self._steps = Steps(self._project, self.commands, self.held, address)
        self._usage = Usage(os.getpid(), *([self.commands.pid] if self.commands else []))
        self.kinds: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tmp, self._temporary = temporary, set[str]()
        self.count = 0

    def run(self, seconds: float) -> bool:
        """Steps until the time is over, or one fails; whether all held."""
        started = time.monotonic()
        try:
            while not self.count or time.monotonic() < started + seconds:
                self._step(started)
            usage = self._usage.check()
        except Exception:
            self._say(traceback.format_exc())
            self._say(f"Failed: seed {self.seed}, step {self.count}; see {self.folder}")
            return False
        finally:
            if self.commands is not None:
                self.commands.close()
        self._say(self._table(time.monotonic() - started, usage))
        return True

    def _step(self, started: float) -> None:
        first = self.count == 0
        drawn = self._chance.choices([*MIXTURE], [*MIXTURE.values()])[0]
        step = Steps.extract if first else drawn
        self.count += 1
        begun = time.monotonic()
        told = step(self._steps)
        call(self.folder, "cache", "verify")
        rows, trials = self.held.rows(complete=True), self.held.trials()
        if self.commands is not None:
            left = self.commands.left()
            assert not left, f"processes are left: {left}"
            self._look_for_temporary(is_killed="SIGKILL" in told)
        now = time.monotonic()
        name = step.__name__
        self.kinds[name] += 1
        self._seconds[name] += now - begun
        line = f"{self.count:5d} {now - started:7.1f} s  {' '.join(told.split())}"
        self._say(f"{line}: {rows} rows, {trials} trials, {self._usage.look()}")

    def _look_for_temporary(self, *, is_killed: bool) -> None:
        """Only what was killed leaves something in the system's folder of temporary files."""
        now = {p.name for p in self._tmp.iterdir() if not _of_wandb(p)} if self._tmp else set()
        new = now - self._temporary
        assert is_killed or not new, f"temporary files are left: {new}"
        self._temporary |= now

    def _table(self, seconds: float, usage: str) -> str:
        rows = [[n, str(c), f"{self._seconds[n]:.0f}"] for n, c in sorted(self.kinds.items())]
        text = format_table(["step", "times", "seconds"], rows)
        if self.commands is not None:
            done = [[what, str(times)] for what, times in sorted(self.commands.done.items())]
            text += "\n\n" + format_table(["done to commands", "times"], done)
        return (
            f"{text}\n\nSeed {self.seed}: {self.count} steps in {seconds / 60:.1f} minutes, "
            f"everything held; {usage}."
        )


def _of_wandb(path: Path) -> bool:
    """Its import makes folders that it removes at exit, which forks do not come to."""
    return "wandb" in path.name or path.name.startswith("torchinductor_")
