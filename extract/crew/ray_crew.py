"""A crew of Ray actors, on the machines of a cluster.

Ray starts them, restarts them if they die or their machine goes, and carries pieces and replies. It
does not repeat pieces: with ``max_task_retries=-1`` it would run one that kills its worker for
ever. The driver repeats them, and counts.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmsa_cache.console import say
from mmsa_cache.errors import DeviceError
from mmsa_cache.native.ray_cluster import is_listening, ray_cluster
from mmsa_cache.version import __version__

from .pieces import Piece
from .protocol import PIECES_A_WORKER, EncoderLoader, Lost, PieceReply, Refused, Sealer
from .ray_worker import ActorSettings, RayWorker

_SECONDS_TO_START = 120.0
"""How long workers may die at the start before the work ends."""
_SECONDS_TO_SAY = 30.0
"""Without a worker, before the user is told: the cluster may be busy with other work."""


@dataclass(slots=True, eq=False)
class _HeldPiece:
    piece: Piece
    reply: Any
    """Ray's reference to it."""


@dataclass(slots=True, eq=False)
class _ActorHandle:
    actor: Any
    info: Any
    """Ray's reference to its `ActorInfo`; None once that has come."""
    node: str = ""
    """Its machine; "" while it starts."""
    held: deque[_HeldPiece] = field(default_factory=deque)
    """The first piece runs."""


class RayCrew:
    """Actors on a Ray cluster, on a GPU each or on some cores.

    Args:
        loader: Loads encoders.
        sealers: Of each job.
        address: See `ray_cluster`.
        workers: Number of actors; default: one a GPU of the cluster, on the CPU one a core.
        gpu: Whether they run on GPUs.
        batch_size: Rows a forward pass; None: what suits the device.

    Raises:
        SettingsError: Ray is missing, or the address is invalid.
        DeviceError: There is no cluster, or it has no GPU.
    """

    def __init__(
        self,
        loader: EncoderLoader,
        sealers: Sequence[Sealer],
        address: str,
        workers: int | None,
        *,
        gpu: bool,
        batch_size: int | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            self._ray = stack.enter_context(ray_cluster(address))
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            count, cores = allocate_workers(nodes, workers, gpu=gpu)
            self._settings = ActorSettings(loader, sealers, gpu, cores, batch_size)
            self._actor = self._ray.remote(RayWorker).options(
                num_cpus=1,
                num_gpus=1 if gpu else 0,
                max_restarts=-1,
                scheduling_strategy="SPREAD",
            )
            self._workers = [self._start() for _ in range(count)]
            self._waiting: deque[Piece] = deque()
            """Pieces that waited behind one that ended their worker."""
            self._alone_since = time.monotonic()
            """When the last worker went, or when all were started."""
            self._told_user = False
            self._stack = stack.pop_all()

    def _start(self) -> _ActorHandle:
        actor = self._actor.remote(self._settings)
        return _ActorHandle(actor, actor.info.remote())

    @property
    def workers(self) -> int:
        """Workers that are ready."""
        return sum(bool(worker.node) for worker in self._workers)

    @property
    def capacity(self) -> int:
        """Pieces that can be submitted now."""
        free = sum(PIECES_A_WORKER - len(worker.held) for worker in self._workers if worker.node)
        return max(0, free - len(self._waiting))

    def submit(self, piece: Piece) -> None:
        """Hands a piece to the worker that has fewest."""
        worker = min((w for w in self._workers if w.node), key=lambda worker: len(worker.held))
        worker.held.append(_HeldPiece(piece, worker.actor.run.remote(piece)))

    def wait(self, timeout: float) -> list[PieceReply]:
        """Replies of workers.

        Raises:
            DeviceError: Workers do not start, or have another version of mmsa.
        """
        if not self.workers and not self._told_user and self._seconds_alone > _SECONDS_TO_SAY:
            self._told_user = True
            say("Ray: waiting for a worker; the cluster's CPUs or GPUs may be taken by other work.")
        # Only the first reply of each worker: when it dies, those to all its pieces come at once.
        first = {
            (worker.info or worker.held[0].reply): worker
            for worker in self._workers
            if worker.info or worker.held
        }
        if not first:
            return []
        self._ray.wait(list(first), num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(list(first), num_returns=len(first), timeout=0)
        replies = [self._receive(first[reference], reference) for reference in ready]
        while self._waiting and any(len(w.held) < PIECES_A_WORKER for w in self._workers if w.node):
            self.submit(self._waiting.popleft())
        return [reply for reply in replies if reply is not None]

    def _receive(self, worker: _ActorHandle, reference: Any) -> PieceReply | None:
        """A worker's reply to a piece; None for its `ActorInfo`."""
        errors = self._ray.exceptions
        is_info = reference is worker.info
        piece = None if is_info else worker.held[0].piece.number
        try:
            reply = self._ray.get(reference)
        except errors.RayActorError as error:
            return self._handle_death(worker, error)
        except errors.RayError as error:  # the request or the reply did not arrive
            if piece is None:
                raise _not_started(error) from error
            worker.held.popleft()
            return Refused(piece, _last_line(error))
        if not is_info:
            worker.held.popleft()
            return reply
        if reply.version != __version__:
            raise DeviceError(
                f"{reply.name} has mmsa {reply.version}, this machine {__version__}.",
                _SAME_VERSION,
            )
        worker.info, worker.node = None, reply.node
        return None

    def _handle_death(self, worker: _ActorHandle, error: Any) -> Lost | None:
        """Requeues the waiting piece of a dead worker; returns its running one as lost."""
        if error.actor_init_failed or (
            not self.workers and self._seconds_alone > _SECONDS_TO_START
        ):
            raise _not_started(error) from error
        if self.workers == 1 and worker.node:
            self._alone_since = time.monotonic()
        node_gone = bool(worker.node) and not self._is_node_alive(worker.node)
        running = worker.held.popleft() if worker.held else None
        self._waiting += [held.piece for held in worker.held]
        worker.held.clear()
        if isinstance(error, self._ray.exceptions.ActorDiedError):  # for good
            self._workers[self._workers.index(worker)] = self._start()
        else:
            worker.node, worker.info = "", worker.actor.info.remote()
        if running is None:
            return None
        reason = "its machine went" if node_gone else "its process died (out of memory?)"
        return Lost(running.piece.number, reason, by_node=node_gone)

    @property
    def _seconds_alone(self) -> float:
        """Seconds without a worker, if there is none."""
        return time.monotonic() - self._alone_since

    def _is_node_alive(self, identifier: str) -> bool:
        """Whether a machine answers; Ray itself knows only after half a minute."""
        node = next((node for node in self._ray.nodes() if node["NodeID"] == identifier), None)
        return (
            node is not None
            and node["Alive"]
            and is_listening(node["NodeManagerAddress"], node["NodeManagerPort"])
        )

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece, and ignores its reply."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting.number != piece)
        for index, worker in enumerate(self._workers):
            numbers = [held.piece.number for held in worker.held]
            if piece not in numbers:
                continue
            if numbers[0] != piece:
                self._ray.cancel(worker.held.pop().reply)
                return
            self._waiting += [held.piece for held in worker.held if held.piece.number != piece]
            self._ray.kill(worker.actor)
            self._workers[index] = self._start()

    def close(self) -> None:
        """Ends all workers, not the cluster."""
        with self._stack:
            for worker in self._workers:
                self._ray.kill(worker.actor)


_SAME_VERSION = f"Install mmsa {__version__} on all machines, with the same Python and Ray."


def _not_started(error: Exception) -> DeviceError:
    return DeviceError(f"Workers do not start: {_last_line(error)}.", _SAME_VERSION)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def allocate_workers(
    machines: Sequence[Mapping[str, float]], workers: int | None, *, gpu: bool
) -> tuple[int, int]:
    """The number of workers, and of threads of each.

    Args:
        machines: ``CPU`` and ``GPU`` of each.
        workers: As asked for; default: one a GPU, on the CPU one a core.
        gpu: Whether they run on GPUs.

    Raises:
        DeviceError: No machine has the kind of device.
    """
    kind = "GPU" if gpu else "CPU"
    count = workers or int(sum(machine.get(kind, 0) for machine in machines))
    if not count:
        raise DeviceError(
            f"No machine of the Ray cluster has a {kind}.",
            "Give --device cpu, or --workers N to wait for machines that have one.",
        )
    if not gpu:
        return count, 1
    # A worker's threads share the machine with those of its other cards.
    shares = [int(m.get("CPU", 1) // m["GPU"]) for m in machines if m.get("GPU", 0) >= 1]
    return count, max(1, min(shares, default=1))
