"""ASGI middleware: checks the origin and size of requests, and sets security headers."""

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

RETRY_SECONDS = 2
"""``Retry-After`` of a request that was refused because the server is busy."""
BODY_SECONDS = 60
"""Time in which the whole body of a request must arrive."""
MOST_TEXT = 64 << 10
"""Largest text, in characters; also the largest request without its picture, in bytes."""
COSTLY_PATHS = ("/errors",)
"""GET requests that are limited as posts are, since their pages are computed."""
_LARGEST_AT_ONCE = 8
"""Requests of the largest size that may be in progress; of smaller ones more."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Policy of the page: it loads only what this server has, and pictures inside the page."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d+)?")
"""A Host header: an IPv6 address in brackets, or a name."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests."""

    picture: int
    """Largest picture, in bytes."""
    waiting: int
    """Requests in progress or waiting: posts, and lists of errors."""

    @property
    def body(self) -> int:
        """Largest body, in bytes; base64 makes a picture a third longer."""
        return MOST_TEXT + self.picture * 4 // 3

    @property
    def too_large(self) -> str:
        """Message for a larger request."""
        return f"The picture is larger than the limit of {self.picture / (1 << 20):g} MB."


class Guard:
    """Refuses requests of other sites, and those over the limits.

    Args:
        app: The application, which gets all other requests.
        host: Name or address that the server listens on.
        limits: Size and number of requests.
    """

    def __init__(self, app: ASGIApp, host: str, limits: Limits) -> None:
        self._app, self._host, self._limits = app, host, limits
        self._posts = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":  # no page opens a websocket
            return
        headers = Headers(scope=scope)
        send = _HeaderSender(send)
        refusal = self._refuse_foreign(headers)
        if refusal is None and (scope["method"] == "POST" or scope["path"] in COSTLY_PATHS):
            await self._call_limited(scope, headers.get("content-length", ""), receive, send)
        else:
            await (refusal or self._app)(scope, receive, send)

    def _refuse_foreign(self, headers: Headers) -> Response | None:
        """The response to a request that another site may have sent; None for our own."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own_host(host, self._host):
            return error_response(
                403, "This name is not the server's own: use the address that it printed."
            )
        if origin not in (None, f"http://{host}", f"https://{host}"):
            return error_response(403, "Another site sent this request.")
        # Browsers send no Origin with embedded resources. Links from other sites are allowed.
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return error_response(403, "Another site sent this request.")
        return None

    async def _call_limited(self, scope: Scope, length: str, receive: Receive, send: Send) -> None:
        """Calls the application within the limits on size and number."""
        largest = self._limits.body
        unknown = largest if scope["method"] == "POST" else 0
        size = int(length) if length.isdecimal() else unknown
        busy = self._bytes and self._bytes + size > _LARGEST_AT_ONCE * largest
        if size > largest:
            await error_response(413, self._limits.too_large)(scope, receive, send)
        elif busy or self._posts >= self._limits.waiting:
            message = f"Too many posts wait; ask again in {RETRY_SECONDS} s."
            await error_response(503, message)(scope, receive, send)
        else:
            self._posts, self._bytes = self._posts + 1, self._bytes + size
            try:
                await self._app(scope, _LimitedReceiver(receive, self._limits), send)
            finally:
                self._posts, self._bytes = self._posts - 1, self._bytes - size


def error_response(status: int, message: str) -> Response:
    """An error as JSON."""
    return JSONResponse({"error": message}, status)


def is_own_host(host: str, bound: str) -> bool:
    """Whether a Host header names this server (other sites can let their names resolve to it).

    Ports are not compared, since tunnels change them.

    Args:
        host: The header.
        bound: Name or address that the server listens on.
    """
    match = _HOST.fullmatch(host.lower())
    name = (match[1] or match[2]) if match else ""
    if name in ("localhost", bound.lower()):
        return True
    if is_loopback(bound):
        return is_loopback(name)
    return _address(name) is not None or name == socket.gethostname().lower()


def is_loopback(name: str) -> bool:
    """Whether a name or address can be reached from this machine alone."""
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class _LimitedReceiver:
    """Receives a body of limited size, within `BODY_SECONDS`."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits, self._bytes = receive, limits, 0
        self._end = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "The rest of the post did not arrive.") from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.body:
            raise HTTPException(413, self._limits.too_large)
        return message


class _HeaderSender:
    """Adds the security headers to responses."""

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
                headers["Retry-After"] = str(RETRY_SECONDS)
        await self._send(message)
