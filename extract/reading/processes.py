"""Processes that read rows for the threads that ask them.

Threads that read share one interpreter's lock with those that launch the model's kernels: on many
cores each waits for all others. So beside a GPU each of them asks a process of its own, which takes
the rows and gives back what the model is fed. Processes start meanwhile; until one is ready, a
thread reads by itself, and so it does where none can be started.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from extract.plan import PreparedRows, Row, read_rows
from mmsa_cache.native.processes import Started, end, end_all, how_it_ended, start_process

from .process import InputPipeline, ReadFailure, ReadReply, ReadRequest, serve
from .wire import receive, send

PRELOAD = f"{__package__}.forked"
_TRIES = 3
"""Processes that a row may end; all but the first are given it alone."""
_STARTS = 3
"""Tries to start a process before threads read by themselves."""
_SECONDS_TO_START = 60.0
"""Of a process; the first one waits for the imports of the one that it is forked from."""
_SECONDS_TO_CLOSE = 1.0
"""How long closing waits for the thread that starts processes."""


@dataclass(slots=True)
class RegisteredPipeline:
    """How rows are read, here and elsewhere."""

    number: int
    source: InputPipeline
    pickled: bytes | None
    """None where it cannot be sent."""
    foreign: bool = False
    """Whether it was seen that no other process can have it, or its rows."""


@dataclass(slots=True, eq=False)
class _ReadingProcess:
    process: Started
    channel: socket.socket
    has: set[int] = field(default_factory=set)
    """Numbers of the sources that it was sent."""

    @classmethod
    def start(cls) -> _ReadingProcess:
        """Starts a process, which is not ready yet.

        Raises:
            OSError: It could not be started.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as failing, theirs:
            failing.callback(ours.close)
            process = start_process(serve, (theirs,), "cpu", PRELOAD)
            failing.pop_all()
        return cls(process, ours)

    def wait_until_ready(self) -> None:
        """Waits until it can be asked.

        Raises:
            OSError: It is not ready in time.
            EOFError: It has ended.
        """
        self.channel.settimeout(_SECONDS_TO_START)
        receive(self.channel)
        self.channel.settimeout(None)

    def ask(self, shared: RegisteredPipeline, rows: list[Row]) -> ReadReply | ReadFailure:
        """Has rows read.

        Raises:
            EOFError: The process has ended.
            OSError: It has.
        """
        source = None if shared.number in self.has else shared.pickled
        send(self.channel, ReadRequest(shared.number, source, rows))
        answer = receive(self.channel)
        assert isinstance(answer, ReadReply | ReadFailure)
        if not (isinstance(answer, ReadFailure) and answer.foreign):
            self.has.add(shared.number)
        return answer

    @property
    def ended(self) -> bool:
        """Whether it has, while nothing was asked of it."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


class ReadingProcesses:
    """Processes that read rows, one for each thread that asks; those that die are replaced.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._count, self._closed = count, False
        self._changed = threading.Condition()
        self._idle: list[_ReadingProcess] = []
        self._busy: list[_ReadingProcess] = []
        """Those at work, and the one that is starting."""
        self._alive = 0
        """Idle ones and those at work."""
        self._failed_starts = 0
        """Since a process was last lost."""
        self._known: dict[bytes, RegisteredPipeline] = {}
        self._starter = threading.Thread(target=self._start_missing, name="start", daemon=True)
        self._starter.start()

    def share(self, source: InputPipeline) -> RegisteredPipeline:
        """Makes known how rows are read; the same for several jobs is sent once."""
        try:
            pickled = pickle.dumps(source, 5)
        except Exception:  # whatever the classes of a foreign reader raise
            return RegisteredPipeline(-1, source, None)
        return self._known.setdefault(
            pickled, RegisteredPipeline(len(self._known), source, pickled)
        )

    def read(self, rows: list[Row], shared: RegisteredPipeline) -> PreparedRows:
        """Reads rows as `read_rows` does; those that no process stands are problems.

        Raises:
            Exception: What preparing them raises.
        """
        alone = shared.pickled is None or shared.foreign
        process = None if alone else self._take(wait=False)
        if process is None:
            return self._here(rows, shared)
        return self._tried(rows, shared, process, 0)

    def _here(self, rows: list[Row], shared: RegisteredPipeline) -> PreparedRows:
        """Reads rows in this thread, unless nobody waits for them any more."""
        if self._closed:
            return PreparedRows()
        return read_rows(rows, shared.source.reader, shared.source)

    def _tried(
        self, rows: list[Row], shared: RegisteredPipeline, process: _ReadingProcess, ended: int
    ) -> PreparedRows:
        """Reads rows by a process, and once more by others, row by row, where it ends.

        Args:
            rows: One, once they have ended a process.
            shared: How they are read.
            process: Was taken.
            ended: Processes that these rows have ended.
        """
        try:
            answer = process.ask(shared, rows)
        except (EOFError, OSError):
            said, whole = self._replace(process), PreparedRows()
            for row in rows:
                whole.add(self._again(row, shared, ended + 1, said))
            return whole
        except Exception:  # rows whose classes stand no pickling; no memory for an answer
            shared.foreign = True
            end(process.process)
            self._replace(process)
            return self._here(rows, shared)
        self._give_back(process)
        if isinstance(answer, ReadReply):
            inputs = [torch.from_numpy(array) for array in answer.inputs]
            return PreparedRows(inputs, answer.operations, answer.problems, answer.seconds)
        if not answer.foreign:
            raise answer.error
        shared.foreign = True
        return self._here(rows, shared)

    def _again(self, row: Row, shared: RegisteredPipeline, ended: int, said: str) -> PreparedRows:
        """Reads a row that has ended processes, the last one as is said."""
        if ended >= _TRIES:
            times = f"{ended} processes that were reading it ended, the last one {said}"
            return PreparedRows(problems=[f"{row.sample.guid}: {times}"])
        process = self._take(wait=True)
        if process is None:
            return self._here([row], shared)
        return self._tried([row], shared, process, ended)

    def _take(self, *, wait: bool) -> _ReadingProcess | None:
        """An idle process, the last one used; None where there is none, or will be none."""
        while True:
            with self._changed:
                while wait and not self._idle and not self._closed:
                    if not self._alive and not self._may_start:
                        break
                    self._changed.wait()
                if not self._idle or self._closed:
                    return None
                process = self._idle.pop()
                self._busy.append(process)
            if not process.ended:
                return process
            self._replace(process)  # no row has ended it
            wait = True

    def _give_back(self, process: _ReadingProcess) -> None:
        with self._changed:
            self._busy.remove(process)
            self._idle.append(process)
            self._changed.notify_all()

    def _replace(self, dead: _ReadingProcess) -> str:
        """Has another process started in the place of one; says how it ended."""
        said = "" if self._closed else how_it_ended(dead.process)
        end(dead.process)
        with self._changed:
            self._busy.remove(dead)
            dead.channel.close()
            self._alive -= 1
            self._failed_starts = 0
            self._changed.notify_all()
        return said

    @property
    def _may_start(self) -> bool:
        """Whether a process is missing, and may still come."""
        return self._alive < self._count and self._failed_starts < _STARTS

    def _start_missing(self) -> None:
        """Starts what is missing, one after the other, until it is closed.

        A thread of its own does: those that read must not wait for a start when it is closed.
        """
        while True:
            with self._changed:
                while not self._closed and not self._may_start:
                    self._changed.wait()
                if self._closed:
                    return
            try:
                self._start()
            except Exception:  # whatever starting a process raises: threads read then
                with self._changed:
                    self._failed_starts += 1
                    self._changed.notify_all()

    def _start(self) -> None:
        """Adds a process once it is ready.

        Raises:
            OSError: It could not be started, or is not ready in time.
            EOFError: It ended at once.
        """
        process = _ReadingProcess.start()
        with self._changed:
            self._busy.append(process)  # from now on `close` ends it
        try:
            if not self._closed:
                process.wait_until_ready()
        except BaseException:
            with self._changed:
                self._busy.remove(process)
            _end_all([process])
            raise
        with self._changed:
            self._busy.remove(process)
            if not self._closed:
                self._alive += 1
                self._idle.append(process)
                self._changed.notify_all()
                return
        _end_all([process])

    def close(self) -> None:
        """Ends the processes; whoever waits for rows of one has none."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.process.kill()  # it may be stopped
                with contextlib.suppress(OSError):
                    process.channel.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        _end_all(idle)
        self._starter.join(_SECONDS_TO_CLOSE)


def _end_all(processes: Sequence[_ReadingProcess]) -> None:
    end_all([(each.process, each.channel) for each in processes])
