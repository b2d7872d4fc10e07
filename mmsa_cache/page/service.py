"""HTTP endpoints of ``mmsa serve``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import python_multipart  # noqa: F401  (forms need it)
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mmsa_cache.console import say
from mmsa_cache.errors import DataError, MmsaError, SettingsError
from mmsa_cache.files.disk import write_new
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.files.untrusted import parse_json
from mmsa_cache.json_value import Json, object_at
from mmsa_cache.version import __version__

from .answers import Answers
from .guard import MOST_TEXT, POLICY, Guard, Limits, error_response
from .view import View

_FRAMED = (
    "sandbox allow-forms; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""Policy of the report and of the list of errors: shown only, inside the page or alone."""
_POLICY = "Content-Security-Policy"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostRequest:
    """The post of a request."""

    text: str | None
    picture: bytes | None


def make_app(answers: Answers, view: View, host: str, limits: Limits) -> ASGIApp:
    """Builds the ASGI application.

    Args:
        answers: The model.
        view: Renders the pages.
        host: Name or address that the server listens on.
        limits: Largest requests accepted.
    """
    endpoints = _Endpoints(answers, view)
    routes = [
        Route("/", endpoints.page),
        Route("/", endpoints.explain, methods=["POST"]),
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/errors", endpoints.errors),
        Route("/report", endpoints.report),
        Route("/health", endpoints.health),
        Route("/page.css", _static(view.style, "text/css")),
        Route("/page.js", _static(view.script, "text/javascript")),
        Route("/icon.svg", _static(view.icon, "image/svg+xml")),
    ]
    kinds = (MmsaError, HTTPException, ClientDisconnect, OSError, Exception)
    handlers = dict.fromkeys(kinds, _handle_error)
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, limits)


class _Endpoints:
    """The request handlers; the model serves one request at a time."""

    def __init__(self, answers: Answers, view: View) -> None:
        self._answers, self._view = answers, view
        self._limiter = anyio.CapacityLimiter(1)

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        """Calls a function in a thread, one call after the other."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)

    async def page(self, request: Request) -> Response:
        return _html(self._view.page())

    async def predict(self, request: Request) -> Response:
        post = await _read_post(request)
        return JSONResponse(asdict(await self._run(_with_file, post, self._answers.answer)))

    async def explain(self, request: Request) -> Response:
        post = await _read_post(request)
        try:
            return _html(await self._run(_with_file, post, self._explanation_page))
        except (DataError, SettingsError) as error:
            return _html(self._view.page(post.text, error=error), status=400)

    def _explanation_page(self, text: str | None, image: Path | None) -> str:
        return self._view.page(text, *self._answers.explain(text, image))

    async def errors(self, request: Request) -> Response:
        classes = (request.query_params.get(name, "") for name in ("true", "predicted"))
        return _html(await self._run(self._view.errors, *classes), _FRAMED)

    async def report(self, request: Request) -> Response:
        pieces = self._view.report()
        return StreamingResponse(pieces, media_type="text/html", headers={_POLICY: _FRAMED})

    async def health(self, request: Request) -> Response:
        about = {"status": "ok", "run": self._view.name, "classes": self._answers.model.classes}
        return JSONResponse(about | {"version": __version__})


def _static(content: str, media_type: str) -> Callable[[Request], Response]:
    return lambda request: Response(content, media_type=media_type)


async def _read_post(request: Request) -> PostRequest:
    """Reads ``text`` and ``image`` of a form, or of JSON with the picture in base64.

    Raises:
        HTTPException: The body is neither.
        DataError: The JSON is not a post.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _parse_json_post(await request.body())
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise HTTPException(415, "Send a form with text and image, or JSON.")
    if "charset" in request.headers.get("content-type", "").lower():  # also codecs of Python alone
        raise HTTPException(415, "Send the form in UTF-8, with no charset named.")
    async with request.form(max_files=1, max_fields=1, max_part_size=MOST_TEXT) as form:
        text, image = form.get("text"), form.get("image")
        picture = await image.read() if isinstance(image, UploadFile) else None
    return PostRequest(text if isinstance(text, str) else None, picture or None)


def _parse_json_post(body: bytes) -> PostRequest:
    try:
        if sum(map(body.count, (b",", b"[", b"{"))) > MOST_TEXT:  # base64 has none
            raise ValueError("it holds more than a text and a picture")
        content = object_at(parse_json(body))
        text, image = (_as_string(content.get(name)) for name in ("text", "image"))
        if len(text or "") > MOST_TEXT:
            raise ValueError(f"its text is longer than {MOST_TEXT} characters")
        return PostRequest(text, base64.b64decode(image, validate=True) if image else None)
    except ValueError as error:
        raise DataError(
            f"The post cannot be read: {error}.", 'Send {"text": …, "image": BASE64}.'
        ) from error


def _as_string(value: Json) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("text and image must be strings")
    return value


def _with_file(post: PostRequest, function: Callable[[str | None, Path | None], T]) -> T:
    """Calls a function with the text and a temporary file of the picture.

    The decoder reads files only; error messages call the file ``picture``.
    """
    if post.picture is None:
        return function(post.text, None)
    with temporary_folder() as folder:
        path = folder / "picture"
        write_new(path, post.picture)
        try:
            return function(post.text, path)
        except DataError as error:
            message = "; ".join(dict.fromkeys(error.problems)) or error.message
            raise DataError(message.replace(f"{folder}/", "") + ".", error.hint) from error


def _html(page: str, policy: str = POLICY, status: int = 200) -> Response:
    return HTMLResponse(page, status, {_POLICY: policy})


def _handle_error(request: Request, error: Exception) -> Response:
    match error:
        case MmsaError():
            status = 400 if isinstance(error, DataError | SettingsError) else 500
            return error_response(status, f"{error.message} {error.hint}".strip())
        case HTTPException():
            return error_response(error.status_code, error.detail)
        case ClientDisconnect():
            return error_response(400, "The rest of the post did not arrive.")
        case OSError():  # the disk of temporary files is full, or descriptors are few
            say(f"A post was not answered: {error.strerror or error}.")
            return error_response(503, "The server has no room for this post now.")
    return error_response(500, "The server failed; its terminal says why.")
