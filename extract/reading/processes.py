"""A pool of processes that read rows for threads.

Threads that read share the interpreter's lock with those that launch the model's kernels, and on
many cores they hold each other up. So beside a GPU each reading thread hands its rows to a process
and gets the model's inputs back. A thread reads by itself until a process is ready, and where none
can be started.
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
from mmsa_cache.native.processes import (
    WorkerProcess,
    end_process,
    end_processes,
    exit_reason,
    start_process,
)

from .process import (
    InputPipeline,
    ReadFailure,
    ReadReply,
    ReadRequest,
    RegisteredPipeline,
    serve,
)
from .wire import receive, send

PRELOAD = f"{__package__}.forked"
_MAX_TRIES = 3
"""Processes that a row may end; all but the first read it alone."""
_MAX_STARTS = 3
"""Failed starts before threads read by themselves."""
_SECONDS_TO_START = 60.0
"""For a process; the first one waits for the imports of the server it is forked from."""
_SECONDS_TO_CLOSE = 1.0
"""How long closing waits for the thread that starts processes."""


@dataclass(slots=True, eq=False)
class _ReadingProcess:
    process: WorkerProcess
    channel: socket.socket
    pipelines: set[int] = field(default_factory=set)
    """Numbers of the pipelines that it has."""

    @classmethod
    def start(cls) -> _ReadingProcess:
        """Starts a process; `wait_until_ready` comes next.

        Raises:
            OSError: It could not be started.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_error, theirs:
            on_error.callback(ours.close)
            process = start_process(serve, (theirs,), "cpu", PRELOAD)
            on_error.pop_all()
        return cls(process, ours)

    def wait_until_ready(self) -> None:
        """Waits until it takes requests.

        Raises:
            OSError: It is not ready in time.
            EOFError: It has ended.
        """
        self.channel.settimeout(_SECONDS_TO_START)
        receive(self.channel)
        self.channel.settimeout(None)

    def read(self, rows: list[Row], registered: RegisteredPipeline) -> ReadReply | ReadFailure:
        """Has rows read.

        Raises:
            EOFError: The process has ended.
            OSError: It has.
        """
        number = registered.number
        pickled = None if number in self.pipelines else registered.pickled
        send(self.channel, ReadRequest(number, pickled, rows))
        reply = receive(self.channel)
        assert isinstance(reply, ReadReply | ReadFailure)
        if not (isinstance(reply, ReadFailure) and reply.local_only):
            self.pipelines.add(number)
        return reply

    @property
    def ended(self) -> bool:
        """Whether it has ended; only while no request is open."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


class ReadingProcesses:
    """A pool of processes that read rows, one for each thread; dead ones are replaced.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        self._count, self._closed = count, False
        self._changed = threading.Condition()
        self._idle: list[_ReadingProcess] = []
        self._busy: list[_ReadingProcess] = []
        """Those at work, and the one that is starting."""
        self._alive = 0
        """Number of idle processes and those at work."""
        self._failed_starts = 0
        """Since the last process died."""
        self._registered: dict[bytes, RegisteredPipeline] = {}
        self._starter = threading.Thread(target=self._start_missing, name="start", daemon=True)
        self._starter.start()

    def register(self, pipeline: InputPipeline) -> RegisteredPipeline:
        """Registers how rows are read; equal pipelines of several jobs are sent once."""
        try:
            pickled = pickle.dumps(pipeline, 5)
        except Exception:  # classes of a reader may raise anything
            return RegisteredPipeline(-1, pipeline, None)
        new = RegisteredPipeline(len(self._registered), pipeline, pickled)
        return self._registered.setdefault(pickled, new)

    def read(self, rows: list[Row], registered: RegisteredPipeline) -> PreparedRows:
        """Reads rows as `read_rows` does; rows that end every process become problems.

        Raises:
            Exception: What preparing them raises.
        """
        local = registered.pickled is None or registered.local_only
        process = None if local else self._acquire(wait=False)
        if process is None:
            return self._read_here(rows, registered)
        return self._read_by(process, rows, registered, 0)

    def _read_here(self, rows: list[Row], registered: RegisteredPipeline) -> PreparedRows:
        """Reads rows in this thread, unless the pool is closed."""
        if self._closed:
            return PreparedRows()
        return read_rows(rows, registered.pipeline.reader, registered.pipeline)

    def _read_by(
        self, process: _ReadingProcess, rows: list[Row], registered: RegisteredPipeline, deaths: int
    ) -> PreparedRows:
        """Reads rows by an acquired process; if it ends, reads them one by one by others.

        Args:
            deaths: Processes that these rows have ended; only one row is read then.
        """
        try:
            reply = process.read(rows, registered)
        except (EOFError, OSError):
            cause, prepared = self._replace(process), PreparedRows()
            for row in rows:
                prepared.add(self._retry_row(row, registered, deaths + 1, cause))
            return prepared
        except Exception:  # rows that cannot be pickled; no memory for the reply
            registered.local_only = True
            end_process(process.process)
            self._replace(process)
            return self._read_here(rows, registered)
        self._release(process)
        if isinstance(reply, ReadReply):
            inputs = [torch.from_numpy(array) for array in reply.inputs]
            return PreparedRows(inputs, reply.operations, reply.problems, reply.seconds)
        if not reply.local_only:
            raise reply.error
        registered.local_only = True
        return self._read_here(rows, registered)

    def _retry_row(
        self, row: Row, registered: RegisteredPipeline, deaths: int, cause: str
    ) -> PreparedRows:
        """Reads a row that has ended processes; `cause` is how the last one ended."""
        if deaths >= _MAX_TRIES:
            problem = f"{deaths} processes that were reading it ended, the last one {cause}"
            return PreparedRows(problems=[f"{row.sample.guid}: {problem}"])
        process = self._acquire(wait=True)
        if process is None:
            return self._read_here([row], registered)
        return self._read_by(process, [row], registered, deaths)

    def _acquire(self, *, wait: bool) -> _ReadingProcess | None:
        """The idle process that was used last; None if there is none, or none will come."""
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
            self._replace(process)  # it ended while idle: no row is to blame
            wait = True

    def _release(self, process: _ReadingProcess) -> None:
        with self._changed:
            self._busy.remove(process)
            self._idle.append(process)
            self._changed.notify_all()

    def _replace(self, dead: _ReadingProcess) -> str:
        """Removes a process and has another one started; returns how it ended, in words."""
        cause = "" if self._closed else exit_reason(dead.process)
        end_process(dead.process)
        with self._changed:
            self._busy.remove(dead)
            dead.channel.close()
            self._alive -= 1
            self._failed_starts = 0
            self._changed.notify_all()
        return cause

    @property
    def _may_start(self) -> bool:
        """Whether a process is missing and may still come."""
        return self._alive < self._count and self._failed_starts < _MAX_STARTS

    def _start_missing(self) -> None:
        """Starts missing processes one after the other, until the pool is closed.

        It runs in a thread of its own, so that closing never waits for a start.
        """
        while True:
            with self._changed:
                while not self._closed and not self._may_start:
                    self._changed.wait()
                if self._closed:
                    return
            try:
                self._start()
            except Exception:  # whatever it is, threads read then
                with self._changed:
                    self._failed_starts += 1
                    self._changed.notify_all()

    def _start(self) -> None:
        """Starts a process and adds it once it is ready.

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
        """Ends the processes; threads that wait for one get no rows."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.process.kill()  # a stopped one hears nothing else
                with contextlib.suppress(OSError):
                    process.channel.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        _end_all(idle)
        self._starter.join(_SECONDS_TO_CLOSE)


def _end_all(processes: Sequence[_ReadingProcess]) -> None:
    end_processes([(each.process, each.channel) for each in processes])
