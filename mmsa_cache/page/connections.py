"""Connections to the page, limited in number and in time."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

SECONDS = 60
"""Time for a request to arrive, and for its response to be read; at most twice that."""
MOST = 256
"""Connections at a time; at most half of the file descriptors."""
WAITING = 32
"""Further connections that the system queues."""


def _most_connections() -> int:
    try:
        import resource
    except ImportError:  # no such limit: Windows
        return MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if limit == resource.RLIM_INFINITY else min(MOST, limit // 2)


class Connection(H11Protocol):
    """A connection that is closed when a request or its response takes too long.

    Where there are too many connections, the oldest idle one is closed.
    """

    _last_cycle: RequestResponseCycle | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._opened_at = self.loop.time()
        self._timer = self.loop.call_later(SECONDS, self._check_progress)
        if len(self.connections) > _most_connections():
            ours = (other for other in self.connections if isinstance(other, Connection))
            idle = (other for other in ours if other._is_idle)
            oldest = min(idle, key=lambda other: other._opened_at, default=self)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    def _check_progress(self) -> None:
        """Closes a connection that still receives or sends the same request as last time."""
        answering = self.cycle is not None and not self.cycle.response_complete
        waits_for_us = answering and self.conn.their_state is not h11.SEND_BODY
        if self.cycle is self._last_cycle and not (waits_for_us and not self.flow.write_paused):
            self.transport.abort()
            return
        self._last_cycle = self.cycle
        self._timer = self.loop.call_later(SECONDS, self._check_progress)
