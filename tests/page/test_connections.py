"""Connections to the page that never finish."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from mmsa_cache.page import connections

BEGUN = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LARGE = 32 << 20
"""Bytes of an answer: more than a system keeps for who does not read."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers once a post is whole, of some paths late or at length."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    size = LARGE if scope["path"] == "/large" else 2
    await send({"type": "http.response.body", "body": bytes(size)})


def served(work: Callable[[int, ServerState], Coroutine[Any, Any, None]]) -> None:
    """Runs a client beside a server."""

    async def run() -> None:
        config = Config(app, lifespan="off", log_config=None, log_level="error", ws="none")
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: connections.Connection(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            await asyncio.wait_for(work(server.sockets[0].getsockname()[1], state), 20)
            await asyncio.sleep(0.05)  # both ends of what was closed are told

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "ends"),
    [
        (b"", True),
        (BEGUN, True),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na", True),
        (BEGUN.replace(b"/ ", b"/large ", 1) + b"\r\n", True),  # not read
        (BEGUN.replace(b"/ ", b"/slow ", 1) + b"\r\n", False),
    ],
)
def test_a_request_comes_and_its_answer_goes_in_time(
    sent: bytes, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.1)

    async def work(port: int, state: ServerState) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(sent)
        await asyncio.sleep(0.35)
        while ends and state.connections:  # a busy machine takes longer
            await asyncio.sleep(0.05)
        if not ends:
            assert state.connections
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    served(work)


def test_the_oldest_that_asks_nothing_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, limits[1]))

    async def work(port: int, state: ServerState) -> None:
        slow = await asyncio.open_connection("127.0.0.1", port)
        slow[1].write(BEGUN.replace(b"/ ", b"/slow ", 1) + b"\r\n")
        idle = []
        for _ in range(20):
            idle.append(await asyncio.open_connection("127.0.0.1", port))
            idle[-1][1].write(BEGUN)
            await asyncio.sleep(0.01)
            assert len(state.connections) <= 5
        for reader, writer in (slow, idle[-1]):
            if reader is not slow[0]:
                writer.write(b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert await idle[0][0].read() == b""
        for _, writer in (slow, *idle):
            writer.close()

    served(work)
