"""Workers that are Ray actors, on the machines of a cluster.

Ray starts them, starts them again where they die or their machine goes, and carries pieces and
answers. It does not repeat pieces: with ``max_task_retries=-1`` it would run one that kills its
worker for ever, so the driver does, and counts.
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
from .protocol import EncoderLoader, Lost, PieceReply, Refused, Sealer
from .ray_worker import ActorSettings, RayWorker

_HELD = 2
"""Pieces that a worker has: one runs, one waits."""
_SECONDS_TO_START = 120.0
"""In which some worker must be there, if those that start die."""
_SECONDS_TO_SAY = 30.0
"""Without a worker, before people are told: a cluster may have other work to end."""


@dataclass(slots=True, eq=False)
class _HeldPiece:
    piece: Piece
    answer: Any
    """Ray's reference to what is said of it."""


@dataclass(slots=True, eq=False)
class _ActorHandle:
    actor: Any
    hello: Any
    """Ray's reference to the answer that is waited for; None once it is there."""
    node: str = ""
    """Its machine; "" while it is starting."""
    held: deque[_HeldPiece] = field(default_factory=deque)
    """The first one runs."""


class RayCrew:
    """Actors on a Ray cluster, on a GPU each or on some cores.

    Args:
        source: Opens the encoders.
        sealers: Where the shards of each job go.
        address: See `ray_cluster`.
        workers: Actors; default: one a GPU of the cluster, on the CPU one a core.
        gpu: Whether they run on GPUs.
        batch_size: Rows a forward pass; None: what suits the device.

    Raises:
        SettingsError: Ray is missing, or the address is none.
        DeviceError: There is no cluster, or it has no GPU.
    """

    def __init__(
        self,
        source: EncoderLoader,
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
            count, cores = share_out(nodes, workers, gpu=gpu)
            self._orders = ActorSettings(source, sealers, gpu, cores, batch_size)
            self._actor = self._ray.remote(RayWorker).options(
                num_cpus=1,
                num_gpus=1 if gpu else 0,
                max_restarts=-1,
                scheduling_strategy="SPREAD",
            )
            self._workers = [self._start() for _ in range(count)]
            self._again: deque[Piece] = deque()
            """Pieces that waited behind one that ended their worker."""
            self._alone_since = time.monotonic()
            """When the last worker went, or all were started."""
            self._told = False
            self._stack = stack.pop_all()

    def _start(self) -> _ActorHandle:
        actor = self._actor.remote(self._orders)
        return _ActorHandle(actor, actor.hello.remote())

    @property
    def workers(self) -> int:
        """Those that work now."""
        return sum(bool(worker.node) for worker in self._workers)

    @property
    def idle(self) -> int:
        """Pieces that can be submitted now."""
        free = sum(_HELD - len(worker.held) for worker in self._workers if worker.node)
        return max(0, free - len(self._again))

    def submit(self, piece: Piece) -> None:
        """Hands out a piece."""
        worker = min((w for w in self._workers if w.node), key=lambda worker: len(worker.held))
        worker.held.append(_HeldPiece(piece, worker.actor.run.remote(piece)))

    def wait(self, timeout: float) -> list[PieceReply]:
        """What workers said of pieces.

        Raises:
            DeviceError: Workers do not start, or are of another version of mmsa.
        """
        if not self.workers and not self._told and self._alone > _SECONDS_TO_SAY:
            self._told = True
            say("Ray: waiting for a worker; the cluster's CPUs or GPUs may be taken by other work.")
        # Of each worker what it does first: when it dies, the answers to all of it come at once.
        first = {
            (worker.hello or worker.held[0].answer): worker
            for worker in self._workers
            if worker.hello or worker.held
        }
        if not first:
            return []
        self._ray.wait(list(first), num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(list(first), num_returns=len(first), timeout=0)
        said = [self._look(first[answer], answer) for answer in ready]
        while self._again and any(len(w.held) < _HELD for w in self._workers if w.node):
            self.submit(self._again.popleft())
        return [one for one in said if one is not None]

    def _look(self, worker: _ActorHandle, answer: Any) -> PieceReply | None:
        """What a worker said, of a piece or of itself."""
        errors = self._ray.exceptions
        greeting = answer is worker.hello
        piece = None if greeting else worker.held[0].piece.number
        try:
            said = self._ray.get(answer)
        except errors.RayActorError as error:
            return self._died(worker, error)
        except errors.RayError as error:  # what it was sent or said did not arrive
            if piece is None:
                raise _not_started(error) from error
            worker.held.popleft()
            return Refused(piece, _last_line(error))
        if not greeting:
            worker.held.popleft()
            return said
        if said.version != __version__:
            raise DeviceError(
                f"{said.name} has mmsa {said.version}, this machine {__version__}.",
                _SAME,
            )
        worker.hello, worker.node = None, said.node
        return None

    def _died(self, worker: _ActorHandle, error: Any) -> Lost | None:
        """Waits for a worker to be there again; says what it was doing."""
        if error.actor_init_failed or (not self.workers and self._alone > _SECONDS_TO_START):
            raise _not_started(error) from error
        if self.workers == 1 and worker.node:
            self._alone_since = time.monotonic()
        gone = bool(worker.node) and not self._is_there(worker.node)
        running = worker.held.popleft() if worker.held else None
        self._again += [held.piece for held in worker.held]
        worker.held.clear()
        if isinstance(error, self._ray.exceptions.ActorDiedError):  # for good
            self._workers[self._workers.index(worker)] = self._start()
        else:
            worker.node, worker.hello = "", worker.actor.hello.remote()
        if running is None:
            return None
        why = "its machine went" if gone else "its process died (out of memory?)"
        return Lost(running.piece.number, why, by_node=gone)

    @property
    def _alone(self) -> float:
        """Seconds without a worker, if there is none."""
        return time.monotonic() - self._alone_since

    def _is_there(self, number: str) -> bool:
        """Whether a machine answers; Ray itself knows only after half a minute."""
        node = next((node for node in self._ray.nodes() if node["NodeID"] == number), None)
        return (
            node is not None
            and node["Alive"]
            and is_listening(node["NodeManagerAddress"], node["NodeManagerPort"])
        )

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece; what it says is not waited for any more."""
        self._again = deque(waiting for waiting in self._again if waiting.number != piece)
        for place, worker in enumerate(self._workers):
            numbers = [held.piece.number for held in worker.held]
            if piece not in numbers:
                continue
            if numbers[0] != piece:
                self._ray.cancel(worker.held.pop().answer)
                return
            self._again += [held.piece for held in worker.held if held.piece.number != piece]
            self._ray.kill(worker.actor)
            self._workers[place] = self._start()

    def close(self) -> None:
        """Ends all workers, not the cluster."""
        with self._stack:
            for worker in self._workers:
                self._ray.kill(worker.actor)


_SAME = f"Install mmsa {__version__} on all machines, with the same Python and Ray."


def _not_started(error: Exception) -> DeviceError:
    return DeviceError(f"Workers do not start: {_last_line(error)}.", _SAME)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def share_out(
    machines: Sequence[Mapping[str, float]], workers: int | None, *, gpu: bool
) -> tuple[int, int]:
    """Workers, and the threads of each.

    Args:
        machines: What each has, as ``CPU`` and ``GPU``.
        workers: As asked for; default: one a GPU, on the CPU one a core.
        gpu: Whether they run on GPUs.

    Raises:
        DeviceError: No machine has what they run on.
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
