"""What stands before the page: whom it answers, how much it reads, what browsers may do with it."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_LATER = 2
"""After which whoever was turned away may ask again."""
SECONDS_TO_COME = 60
"""In which all of a post has to come."""
MOST_TEXT = 64 << 10
"""Characters of a text; bytes of a request beside its picture."""
AT_WORK = ("/errors",)
"""What is made when it is asked for, and counts as a post."""
_LARGEST = 8
"""Pictures of the largest size that may come at a time; of smaller ones more."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""What the page may load: what this server has, and pictures in it. Other responses say less."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d+)?")
"""A Host header: an IPv6 address, or another name."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes."""

    picture: int
    """Bytes of a picture."""
    waiting: int
    """Posts, and lists of errors, that are made or wait."""

    @property
    def body(self) -> int:
        """Bytes of a request: base64 makes a third more of a picture."""
        return MOST_TEXT + self.picture * 4 // 3

    @property
    def too_large(self) -> str:
        """What is said of a request that is larger."""
        return f"The picture is larger than the limit of {self.picture / (1 << 20):g} MB."


class Guard:
    """Turns away strangers, and what is too large or too much; the rest is the application's.

    Args:
        app: The application.
        host: The name or address that the server listens on.
        limits: What it takes.
    """

    def __init__(self, app: ASGIApp, host: str, limits: Limits) -> None:
        self._app, self._host, self._limits = app, host, limits
        self._posts = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":  # no page of it opens a websocket
            return
        headers = Headers(scope=scope)
        marked = _Marked(send)
        refused = self._stranger(headers)
        if refused is None and (scope["method"] == "POST" or scope["path"] in AT_WORK):
            await self._in_turn(scope, headers.get("content-length", ""), receive, marked)
        else:
            await (refused or self._app)(scope, receive, marked)

    def _stranger(self, headers: Headers) -> Response | None:
        """What a request hears that another site may have sent."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own_host(host, self._host):
            return said(403, "This name is not the server's own: use the address that it printed.")
        if origin not in (None, f"http://{host}", f"https://{host}"):
            return said(403, "Another site sent this request.")
        # Of what a page loads from elsewhere, browsers tell no origin; links may lead here.
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return said(403, "Another site sent this request.")
        return None

    async def _in_turn(self, scope: Scope, length: str, receive: Receive, send: Send) -> None:
        most = self._limits.body
        unknown = most if scope["method"] == "POST" else 0
        size = int(length) if length.isdecimal() else unknown
        busy = self._bytes and self._bytes + size > _LARGEST * most
        if size > most:
            await said(413, self._limits.too_large)(scope, receive, send)
        elif busy or self._posts >= self._limits.waiting:
            later = f"Too many posts wait; ask again in {SECONDS_LATER} s."
            await said(503, later)(scope, receive, send)
        else:
            self._posts, self._bytes = self._posts + 1, self._bytes + size
            try:
                await self._app(scope, _Counted(receive, self._limits), send)
            finally:
                self._posts, self._bytes = self._posts - 1, self._bytes - size


def said(status: int, message: str) -> Response:
    """An error as JSON."""
    return JSONResponse({"error": message}, status)


def is_own_host(host: str, bound: str) -> bool:
    """Whether a Host header names this server: names of other sites may be made to lead here.

    Ports are not compared, since tunnels have their own.

    Args:
        host: The header.
        bound: The name or address that the server listens on.
    """
    found = _HOST.fullmatch(host.lower())
    name = (found[1] or found[2]) if found else ""
    if name in ("localhost", bound.lower()):
        return True
    if is_loopback(bound):
        return is_loopback(name)
    return _address(name) is not None or name == socket.gethostname().lower()


def is_loopback(name: str) -> bool:
    """Whether a name or an address is one that only this machine reaches."""
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class _Counted:
    """Receives a body up to a size and in a time."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits, self._bytes = receive, limits, 0
        self._end = asyncio.get_running_loop().time() + SECONDS_TO_COME

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "The rest of the post did not come.") from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.body:
            raise HTTPException(413, self._limits.too_large)
        return message


class _Marked:
    """Sends responses with the headers of this server."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault(
                "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
            )
            if message["status"] == 503:
                headers["Retry-After"] = str(SECONDS_LATER)
        await self._send(message)
