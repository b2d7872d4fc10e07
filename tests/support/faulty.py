"""Disks that fail or end the process at a chosen step, and processes forked off for that."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from mmsa_cache.files.disk import Disk


class Counting(Disk):
    """Counts the steps by kind."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def _step(self, kind: str) -> None:
        self.steps.append(kind)

    def create(self, path: Path) -> int:
        self._step("create")
        return super().create(path)

    def append(self, path: Path, size: int | None = None) -> int:
        self._step("append")
        return super().append(path, size)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._step("write")
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._step("fsync")
        super().fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename")
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step("remove")
        super().remove(path)

    def make_folder(self, path: Path, *, fresh: bool = False, mode: int = 0o777) -> None:
        self._step("folder")
        super().make_folder(path, fresh=fresh, mode=mode)


class Failing(Counting):
    """Raises an OSError at one step, or from that step on.

    Args:
        at: The step, from 1.
        code: ``errno.EIO`` and the like.
        lasting: Whether every later write, creation and folder fails too, as on a full disk;
            nothing can be cut off then either.
    """

    def __init__(self, at: int, code: int, *, lasting: bool = False) -> None:
        super().__init__()
        self._at, self._code, self._lasting = at, code, lasting

    def _step(self, kind: str) -> None:
        super()._step(kind)
        now = len(self.steps)
        full = self._lasting and now > self._at and kind in ("create", "write", "folder")
        if now == self._at or full:
            raise OSError(self._code, os.strerror(self._code))

    def truncate(self, descriptor: int, size: int) -> None:
        if not self._lasting:
            super().truncate(descriptor, size)


class Short(Counting):
    """Writes a few bytes at a time, as the system may."""

    def write(self, descriptor: int, data: memoryview) -> int:
        return super().write(descriptor, data[:1000])


class Deadly(Counting):
    """Kills the process at one step; a write is half done then.

    Args:
        at: The step, from 1.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def _step(self, kind: str) -> None:
        super()._step(kind)
        if kind != "write":
            self._die()

    def _die(self) -> None:
        if len(self.steps) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, descriptor: int, data: memoryview) -> int:
        if len(self.steps) + 1 == self._at:
            os.write(descriptor, data[: len(data) // 2])
        self._step("write")
        self._die()
        return os.write(descriptor, data)


class Forgetful(Counting):
    """Remembers what a loss of power may take: what was not fsynced.

    After `crash` every unsynced file is empty, unsynced lines are gone or torn, and every name that
    its folder was not synced for is as it was before: the worst that POSIX allows.

    Args:
        at: The step before which the power goes, from 1.
        torn: Whether half of an appended line stays; files that were removed stay away then.
    """

    def __init__(self, at: int, *, torn: bool = False) -> None:
        super().__init__()
        self._at, self._torn = at, torn
        self._unsynced: set[Path] = set()
        self._grown: dict[Path, int] = {}
        self._undo: list[tuple[Path, Callable[[], object]]] = []

    def _step(self, kind: str) -> None:
        super()._step(kind)
        if len(self.steps) >= self._at:  # nothing is tidied up either
            raise PowerLossError

    def append(self, path: Path, size: int | None = None) -> int:
        descriptor = super().append(path, size)
        assert size is not None  # an index
        self._grown[path] = size
        return descriptor

    def truncate(self, descriptor: int, size: int) -> None:
        if len(self.steps) < self._at:
            super().truncate(descriptor, size)

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._unsynced.add(path)
        self._undo.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return descriptor

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._unsynced.discard(target)
        self._grown.pop(target, None)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != target]

    def rename(self, old: Path, new: Path) -> None:
        before = new.read_bytes() if new.exists() else None
        content = old.read_bytes()
        torn = old in self._unsynced
        super().rename(old, new)
        if torn:
            self._unsynced.add(new)

        def undo() -> None:
            old.write_bytes(content)
            if before is None:
                new.unlink(missing_ok=True)
            else:
                new.write_bytes(before)

        self._undo.append((new.parent, undo))

    def remove(self, path: Path) -> None:
        content = path.read_bytes()
        super().remove(path)
        if not self._torn:
            self._undo.append((path.parent, lambda: path.write_bytes(content)))

    def make_folder(self, path: Path, *, fresh: bool = False, mode: int = 0o777) -> None:
        super().make_folder(path, fresh=fresh, mode=mode)

        def undo() -> None:
            with contextlib.suppress(OSError):
                for left in path.iterdir():
                    left.unlink()
                path.rmdir()

        self._undo.append((path.parent, undo))

    def crash(self) -> None:
        """Takes away what was not made durable."""
        for path in self._unsynced:
            if path.exists():
                path.write_bytes(b"")
        for path, size in self._grown.items():
            added = path.stat().st_size - size
            os.truncate(path, size + (added // 2 if self._torn else 0))
        for _, undo in reversed(self._undo):
            with contextlib.suppress(FileNotFoundError):
                undo()


class PowerLossError(BaseException):
    """The power went."""


def forked(work: Callable[[], None]) -> int:
    """Runs work in a child; 0 for its return, else its exit code or −signal."""
    pid = fork(work)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def fork(work: Callable[[], None], log: Path | None = None) -> int:
    """Starts work in a child with all that is imported here; its process number.

    Args:
        work: Its SystemExit is the child's; an exception is code 70.
        log: Takes what the child prints.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads, of which none works here
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return 0
