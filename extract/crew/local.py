"""A crew of processes on this machine, each on its own cores or its own GPU."""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mmsa_cache.errors import DeviceError
from mmsa_cache.native.cores import CoreShare, core_share
from mmsa_cache.native.processes import (
    end_process,
    end_processes,
    end_with_parent,
    exit_reason,
    send,
    start_process,
)

from .pieces import Piece
from .protocol import PIECES_A_WORKER, EncoderLoader, Lost, PieceReply, Sealer

_MAX_FAILED_STARTS = 3
"""Of workers, in a row, before the work ends."""


@dataclass(frozen=True, slots=True)
class _WorkerSettings:
    """The first message to a worker process."""

    loader: EncoderLoader
    sealers: Sequence[Sealer]
    device: str
    cores: CoreShare
    batch_size: int | None


def serve(pipe: Connection) -> None:
    """The process's main function."""
    end_with_parent()
    pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        settings: _WorkerSettings = pipe.recv()
        settings.cores.pin()  # before anything starts threads
        import torch

        from .worker import CrewWorker

        torch.set_num_threads(1)
        worker = CrewWorker(
            settings.loader,
            settings.sealers,
            torch.device(settings.device),
            settings.cores.count,
            settings.batch_size,
        )
        # A thread receives pieces, so that the sender need not wait for the one that runs.
        threading.Thread(target=_receive, args=(pipe, pieces), daemon=True).start()
        pipe.send(None)  # ready
        while (piece := pieces.get()) is not None:
            pipe.send(worker.run(piece))


def _receive(pipe: Connection, pieces: queue.SimpleQueue[Piece | None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            pieces.put(pipe.recv())
    pieces.put(None)


@dataclass(slots=True)
class _WorkerProcess:
    settings: _WorkerSettings
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    pieces: deque[Piece] = field(default_factory=deque)
    """The first one runs."""

    @classmethod
    def start(cls, settings: _WorkerSettings) -> _WorkerProcess:
        ours, theirs = Pipe()
        process = start_process(serve, (theirs,), settings.device, f"{__package__}.forked")
        theirs.close()
        send(ours, settings)
        return cls(settings, process, ours)


class LocalCrew:
    """Worker processes on this machine; dead ones are replaced.

    Args:
        loader: Loads encoders.
        sealers: Of each job.
        devices: Of each worker: ``cpu``, ``cuda:0`` …
        batch_size: Rows a forward pass; None: what suits the device.
    """

    def __init__(
        self,
        loader: EncoderLoader,
        sealers: Sequence[Sealer],
        devices: Sequence[str],
        batch_size: int | None,
    ) -> None:
        self._failed_starts = 0
        self._workers: list[_WorkerProcess] = []
        for index, device in enumerate(devices):
            cores = core_share(index, len(devices))
            settings = _WorkerSettings(loader, sealers, device, cores, batch_size)
            self._workers.append(_WorkerProcess.start(settings))

    @property
    def workers(self) -> int:
        """Workers that are ready."""
        return sum(worker.ready for worker in self._workers)

    @property
    def capacity(self) -> int:
        """Pieces that can be submitted now."""
        return sum(PIECES_A_WORKER - len(worker.pieces) for worker in self._workers if worker.ready)

    def submit(self, piece: Piece) -> None:
        """Hands a piece to the worker that has fewest."""
        ready = (worker for worker in self._workers if worker.ready)
        worker = min(ready, key=lambda worker: len(worker.pieces))
        worker.pieces.append(piece)
        send(worker.pipe, piece)

    def wait(self, timeout: float) -> list[PieceReply]:
        """Replies of workers.

        Raises:
            DeviceError: Workers do not start.
        """
        replies: list[PieceReply] = []
        readable = wait([worker.pipe for worker in self._workers], timeout)
        for index, worker in enumerate(self._workers):
            if worker.pipe not in readable:
                continue
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                replies += self._replace(index)
                continue
            if message is None:
                worker.ready, self._failed_starts = True, 0
                for piece in worker.pieces:
                    send(worker.pipe, piece)
            else:
                worker.pieces.popleft()
                replies.append(message)
        return replies

    def _replace(self, index: int) -> list[PieceReply]:
        """Starts a worker in place of a dead one, whose running piece is lost."""
        dead = self._workers[index]
        reason = exit_reason(dead.process)
        if not dead.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise DeviceError(
                    f"Workers do not start: {reason}.", "Try --workers 1; look at the memory."
                )
        lost = dead.pieces.popleft() if dead.ready and dead.pieces else None
        self._restart(index)
        return [] if lost is None else [Lost(lost.number, reason)]

    def _restart(self, index: int) -> None:
        """Starts a worker anew; it keeps the pieces of the old one."""
        old = self._workers[index]
        old.pipe.close()
        self._workers[index] = _WorkerProcess.start(old.settings)
        self._workers[index].pieces = old.pieces

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece, and ignores its reply."""
        for index, worker in enumerate(self._workers):
            others = deque(each for each in worker.pieces if each.number != piece)
            if len(others) < len(worker.pieces):
                worker.pieces = others
                end_process(worker.process)
                self._restart(index)

    def close(self) -> None:
        """Ends all workers."""
        end_processes([(worker.process, worker.pipe) for worker in self._workers])
