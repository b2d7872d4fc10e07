"""What must hold after every step."""

from __future__ import annotations

import os

import psutil

from tests.support.study_records import FINISHED, Trials, raw_trials

from .project import Project, Rows, leftovers, rows_in_store


class Invariants:
    """Compares what there is with what was there a step before, and with the reference."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._rows: Rows = {}
        self._finished: Trials = {}
        self._answers: dict[str, bytes] = {}

    def rows(self, *, complete: bool, pruned: bool = False) -> int:
        """The store's rows: all right, none lost.

        Args:
            complete: Whether all that are needed must be there.
            pruned: Whether those that are not needed must have gone.
        """
        project = self._project
        now, wanted = rows_in_store(project.cache), project.wanted()
        wrong = [key for key, row in now.items() if project.reference.get(key) != row]
        assert not wrong, f"{len(wrong)} rows are not those of the reference: {wrong[:3]}"
        lost = self._rows.keys() - now.keys()
        assert not (lost & wanted if pruned else lost), f"{len(lost)} rows were lost"
        if complete:
            missing = wanted - now.keys()
            assert not missing, f"{len(missing)} rows are missing"
        if pruned:
            more = now.keys() - wanted
            assert not more, f"{len(more)} rows that nothing needs are there"
        self._rows = now
        return len(now)

    def trials(self, study: str = "", total: int | None = None) -> int:
        """Finished trials stay as they are.

        Args:
            study: One that was searched just now.
            total: How many finished trials it must have; None: it was killed.
        """
        now = raw_trials(self._project.folder / "studies/studies.db")
        finished = {key: trial for key, trial in now.items() if trial[0] in FINISHED}
        changed = [k for k, trial in self._finished.items() if finished.get(k) != trial]
        assert not changed, f"finished trials were lost or changed: {changed[:3]}"
        self._finished = finished
        if total is not None:
            states = [state for (name, _), (state, _) in now.items() if name == study]
            count = sum(state in FINISHED for state in states)
            assert count == total, f"{study}: {count} finished trials, wanted {total}"
            others = set(states) - {*FINISHED, "FAIL"}
            assert not others, f"{study}: trials are left {others}"
        return len(finished)

    def answer(self, question: str, answer: bytes) -> None:
        """Equal questions have equal answers, ever after."""
        before = self._answers.setdefault(question, answer)
        assert before == answer, f"{question} was answered otherwise before"

    def no_leftovers(self, *below: str) -> None:
        """Folders in which a command succeeded have no temporary files."""
        left = leftovers(self._project.folder, below)
        assert not left, f"temporary files are left: {left}"


class Usage:
    """Memory and descriptors of processes, step by step."""

    def __init__(self, *pids: int) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._seen: list[list[tuple[int, int]]] = []

    def look(self) -> str:
        """Notes them; in words."""
        now = [(p.memory_info().rss, p.num_fds()) for p in self._processes]
        self._seen.append(now)
        return " ".join(f"{rss >> 20} MiB {files} files" for rss, files in now)

    def check(self) -> str:
        """They are flat: from the second quarter of the steps to the last one.

        Returns:
            What they were.
        """
        quarter = max(1, len(self._seen) // 4)
        told = []
        for number, process in enumerate(self._processes):
            early = self._seen[quarter : 2 * quarter] or self._seen
            (rss, files), (last_rss, last_files) = (
                [max(look[number][kind] for look in looks) for kind in (0, 1)]
                for looks in (early, self._seen[-quarter:])
            )
            name = "driver" if process.pid == os.getpid() else "its forks' origin"
            told.append(f"{name} {rss >> 20} → {last_rss >> 20} MiB, {files} → {last_files} files")
            assert last_files <= files + _MORE_FILES, told
            assert last_rss <= 1.1 * rss + _MORE_MEMORY, told
        return "; ".join(told)


_MORE_FILES = 3
_MORE_MEMORY = 32 << 20
"""What caches of libraries may take later than in the second quarter."""
