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
from .protocol import EncoderLoader, Lost, PieceReply, Sealer

_HANDS = 2
"""Pieces that a worker holds: the next one is there when it is done with one."""
_STARTS = 3
"""Tries to start a worker before the work ends."""


@dataclass(frozen=True, slots=True)
class _WorkerSettings:
    """What a worker process is told first."""

    source: EncoderLoader
    sealers: Sequence[Sealer]
    device: str
    share: CoreShare
    batch_size: int | None


def serve(pipe: Connection) -> None:
    """The process's main function."""
    end_with_parent()
    pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        orders: _WorkerSettings = pipe.recv()
        orders.share.pin()  # before anything starts threads
        import torch

        from .worker import CrewWorker

        torch.set_num_threads(1)
        cores = orders.share.count
        worker = CrewWorker(
            orders.source, orders.sealers, torch.device(orders.device), cores, orders.batch_size
        )
        # Pieces are taken while others are worked on: whoever sends them must not wait for that.
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
    orders: _WorkerSettings
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    hands: deque[Piece] = field(default_factory=deque)
    """The first one is being worked on."""


class LocalCrew:
    """Processes on this machine; those that die are replaced.

    Args:
        source: Where encoders come from.
        sealers: Where the shards of each job go.
        devices: One a worker: ``cpu``, ``cuda:0`` …
        batch_size: Rows a forward pass; None: what suits the device.
    """

    def __init__(
        self,
        source: EncoderLoader,
        sealers: Sequence[Sealer],
        devices: Sequence[str],
        batch_size: int | None,
    ) -> None:
        self._failed_starts = 0
        self._workers: list[_WorkerProcess] = []
        for number, device in enumerate(devices):
            share = core_share(number, len(devices))
            self._workers.append(
                _start(_WorkerSettings(source, sealers, device, share, batch_size))
            )

    @property
    def workers(self) -> int:
        return sum(worker.ready for worker in self._workers)

    @property
    def idle(self) -> int:
        return sum(_HANDS - len(worker.hands) for worker in self._workers if worker.ready)

    def submit(self, piece: Piece) -> None:
        ready = (worker for worker in self._workers if worker.ready)
        worker = min(ready, key=lambda worker: len(worker.hands))
        worker.hands.append(piece)
        send(worker.pipe, piece)

    def wait(self, timeout: float) -> list[PieceReply]:
        said: list[PieceReply] = []
        heard = wait([worker.pipe for worker in self._workers], timeout)
        for place, worker in enumerate(self._workers):
            if worker.pipe not in heard:
                continue
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                said += self._replace(place)
                continue
            if message is None:
                worker.ready, self._failed_starts = True, 0
                for piece in worker.hands:
                    send(worker.pipe, piece)
            else:
                worker.hands.popleft()
                said.append(message)
        return said

    def _replace(self, place: int) -> list[PieceReply]:
        """Starts a worker in the place of one that has died; the piece it worked on is lost."""
        dead = self._workers[place]
        reason = exit_reason(dead.process)
        if not dead.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise DeviceError(
                    f"Workers do not start: {reason}.", "Try --workers 1; look at the memory."
                )
        lost = dead.hands.popleft() if dead.ready and dead.hands else None
        self._start_again(place)
        return [] if lost is None else [Lost(lost.number, reason)]

    def _start_again(self, place: int) -> None:
        """The new worker has what the old one had in hand."""
        old = self._workers[place]
        old.pipe.close()
        self._workers[place] = _start(old.orders)
        self._workers[place].hands = old.hands

    def forget(self, piece: int) -> None:
        for place, worker in enumerate(self._workers):
            kept = deque(held for held in worker.hands if held.number != piece)
            if len(kept) < len(worker.hands):
                worker.hands = kept
                end_process(worker.process)
                self._start_again(place)

    def close(self) -> None:
        end_processes([(worker.process, worker.pipe) for worker in self._workers])


def _start(orders: _WorkerSettings) -> _WorkerProcess:
    ours, theirs = Pipe()
    process = start_process(serve, (theirs,), orders.device, f"{__package__}.forked")
    theirs.close()
    worker = _WorkerProcess(orders, process, ours)
    send(worker.pipe, orders)
    return worker
