"""Workers of a search on a Ray cluster.

Each worker is an actor, represented by a thread of this process. The thread forwards what the pool
sends over the pipe and returns the actor's reply: one for each message.
"""

from __future__ import annotations

import contextlib
import threading
from multiprocessing.connection import Connection

from mmsa_cache.version import __version__

from .pool import WorkerDeath
from .ray_worker import SearchWorker


class RayProcess(threading.Thread):
    """Forwards messages between the pool's pipe and an actor. A `pool.Start`.

    The actor runs on the cluster that this process is connected to.

    Args:
        pipe: The worker's end.
        device: See `SearchWorker`.
        sharers: Number of actors that share a GPU.
    """

    exitcode = None

    def __init__(self, pipe: Connection, device: str, sharers: int = 1) -> None:
        super().__init__(daemon=True)
        import ray

        # The pool restarts and counts: Ray would repeat a trial that kills its worker forever.
        actor = ray.remote(SearchWorker).options(
            num_cpus=1,
            num_gpus=0 if device == "cpu" else 1 / sharers,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._pipe, self._actor = pipe, actor.remote(device, __version__)
        self.start()

    def run(self) -> None:
        import ray

        with contextlib.closing(self._pipe), contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv_bytes()
                try:
                    reply = ray.get(self._actor.exchange.remote(message))
                except ray.exceptions.RayError as error:
                    self._pipe.send(WorkerDeath(_how_it_ended(error)))
                    return
                self._pipe.send_bytes(reply)
        self.terminate()

    def terminate(self) -> None:
        """Ends the actor, even during a training."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor)

    kill = terminate


def _how_it_ended(error: Exception) -> str:
    text = str(error).strip()
    if "its node has died" in text:
        return "its machine went"
    if "its worker process has died" in text:
        return "its process died (out of memory?)"
    return f"{type(error).__name__}: {text.splitlines()[-1].strip()[:300]}"
