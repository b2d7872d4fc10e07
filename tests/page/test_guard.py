"""Whom the page answers, and how much it reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from mmsa_cache.page.guard import Guard, Limits, _LimitedReceiver, is_own_host

STRANGE = (
    "",
    "[::1",
    "[x]:1",
    "localhost@evil.example",
    "evil.example",
    "evil.example:7860",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
)


@pytest.mark.parametrize(
    ("bound", "own", "foreign"),
    [
        ("127.0.0.1", ("127.0.0.1", "localhost:7860", "LOCALHOST", "[::1]:80"), ("192.168.1.5",)),
        ("localhost", ("localhost", "127.0.0.1:1"), ("10.0.0.1:7860",)),
        ("0.0.0.0", ("192.168.1.5:7860", "localhost", "[fe80::1]"), ()),
        ("::", ("[::1]", "10.1.2.3"), ()),
        ("box.example", ("box.example:7860", "10.0.0.1"), ("other.example",)),
    ],
)
def test_names_of_other_sites_are_not_its_own(
    bound: str, own: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    assert all(is_own_host(host, bound) for host in own)
    assert not any(is_own_host(host, bound) for host in (*foreign, *STRANGE))


class Asked:
    """Requests to a guard, in this process; its application reads a post when it is let."""

    def __init__(self, limits: Limits) -> None:
        self.let = asyncio.Event()
        self.guard = Guard(self._app, "127.0.0.1", limits)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.let.wait()
        await receive()
        await PlainTextResponse("read")(scope, receive, send)

    async def post(
        self, size: int, body: bytes = b"", method: str = "POST", path: str = "/"
    ) -> int:
        """The status of a post that says how large it is, 0 where it is of no size."""
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        length = [(b"content-length", str(size).encode())] if size else []
        headers = [(b"host", b"localhost"), *length]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await self.guard(scope, receive, send)
        return statuses[0]


@pytest.mark.parametrize(("size", "fit"), [(10, 20), (0, 8), (Limits(1 << 20, 20).body, 8)])
def test_so_many_posts_and_so_many_bytes_wait(size: int, fit: int) -> None:
    async def ask() -> None:
        asked = Asked(Limits(picture=1 << 20, waiting=20))
        first = [asyncio.create_task(asked.post(size)) for _ in range(30)]
        await asyncio.sleep(0.01)
        asked.let.set()
        assert sorted(await asyncio.gather(*first)) == [200] * fit + [503] * (30 - fit)
        assert [await asked.post(size) for _ in range(30)] == [200] * 30

    asyncio.run(ask())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_lists_of_errors_wait_as_posts_do(method: str) -> None:
    """Each is made when it is asked for, by the thread that answers posts."""

    async def ask() -> None:
        asked = Asked(Limits(picture=1 << 20, waiting=20))
        lists = [asyncio.create_task(asked.post(0, b"", method, "/errors")) for _ in range(30)]
        await asyncio.sleep(0.01)
        page = asyncio.create_task(asked.post(0, b"", method, "/"))
        asked.let.set()
        assert sorted(await asyncio.gather(*lists)) == [200] * 20 + [503] * 10
        assert await page == 200

    asyncio.run(ask())


def test_a_body_ends_where_it_is_too_large_or_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(picture=1 << 20, waiting=1)

    async def ask(body: bytes) -> None:
        asked = Asked(limits)
        asked.let.set()
        for _ in range(2):  # the place is free again
            with pytest.raises(HTTPException) as raised:
                await asked.post(0, body)
            assert raised.value.status_code == 413
        assert await asked.post(limits.body + 1) == 413
        assert await asked.post(limits.body) == 200

    asyncio.run(ask(bytes(limits.body + 1)))
    monkeypatch.setattr("mmsa_cache.page.guard.BODY_SECONDS", 0.01)

    async def silent() -> None:
        with pytest.raises(HTTPException) as raised:
            await _LimitedReceiver(asyncio.Event().wait, limits)()
        assert raised.value.status_code == 408

    asyncio.run(silent())
