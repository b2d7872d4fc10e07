"""Connections to the page: so many at a time, each of which has to come to an end."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

SECONDS = 60
"""In which a request has to arrive, and its answer to be taken; at most twice that."""
MOST = 256
"""Connections at a time; where descriptors are few, half as many as those."""
WAITING = 32
"""Connections that the system takes beside those, until they are seen here."""


def _most() -> int:
    try:
        import resource
    except ImportError:  # no such limit: Windows
        return MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if limit == resource.RLIM_INFINITY else min(MOST, limit // 2)


class Connection(H11Protocol):
    """A connection that is given up where nothing of it moves on but by drops.

    Where there are too many, the oldest goes that has asked for nothing.
    """

    _seen: RequestResponseCycle | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(SECONDS, self._look)
        if len(self.connections) > _most():
            idle = (found for found in self.connections if isinstance(found, Connection))
            oldest = min((i for i in idle if i._asks_nothing), key=lambda i: i._since, default=self)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _asks_nothing(self) -> bool:
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    def _look(self) -> None:
        """Ends a connection on which the same request has been coming, or its answer going."""
        at_work = self.cycle is not None and not self.cycle.response_complete
        waits_for_us = at_work and self.conn.their_state is not h11.SEND_BODY
        if self.cycle is self._seen and not (waits_for_us and not self.flow.write_paused):
            self.transport.abort()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(SECONDS, self._look)
