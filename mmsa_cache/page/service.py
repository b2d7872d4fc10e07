"""The pages and the endpoint of ``mmsa serve``."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
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
from mmsa_cache.files.scratch import scratch
from mmsa_cache.files.untrusted import parse_json
from mmsa_cache.json_value import Json, object_at
from mmsa_cache.version import __version__

from .answers import Answers
from .guard import MOST_TEXT, POLICY, Guard, Limits, said
from .view import View

_FRAMED = (
    "sandbox allow-forms; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""What a report and a list of errors may do: be looked at, inside the page or alone."""
_POLICY = "Content-Security-Policy"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks about."""

    text: str | None
    picture: bytes | None


def make_app(answers: Answers, view: View, host: str, limits: Limits) -> ASGIApp:
    """The application.

    Args:
        answers: The model.
        view: Writes its pages.
        host: The name or address that the server listens on.
        limits: What it takes.
    """
    turn = anyio.CapacityLimiter(1)

    async def ask(post: Question, function: Callable[[str | None, Path | None], T]) -> T:
        def work() -> T:
            with _on_disk(post.picture) as path:
                return function(post.text, path)

        return await anyio.to_thread.run_sync(work, limiter=turn)

    async def predict(request: Request) -> Response:
        return JSONResponse(asdict(await ask(await _post_of(request), answers.answer)))

    async def page(request: Request) -> Response:
        return _html(view.page())

    def explained(text: str | None, image: Path | None) -> str:
        return view.page(text, *answers.explained(text, image))

    async def explain(request: Request) -> Response:
        post = await _post_of(request)
        try:
            return _html(await ask(post, explained))
        except (DataError, SettingsError) as error:
            return _html(view.page(post.text, error=error), status=400)

    async def errors(request: Request) -> Response:
        chosen = request.query_params
        found = await anyio.to_thread.run_sync(
            view.errors, chosen.get("true", ""), chosen.get("predicted", ""), limiter=turn
        )
        return _html(found, _FRAMED)

    async def report(request: Request) -> Response:
        return StreamingResponse(view.report(), media_type="text/html", headers={_POLICY: _FRAMED})

    async def health(request: Request) -> Response:
        about = {"status": "ok", "run": view.name, "classes": answers.model.classes}
        return JSONResponse(about | {"version": __version__})

    def part(content: str, kind: str) -> Callable[[Request], Response]:
        return lambda request: Response(content, media_type=kind)

    routes = [
        Route("/", page),
        Route("/", explain, methods=["POST"]),
        Route("/predict", predict, methods=["POST"]),
        Route("/errors", errors),
        Route("/report", report),
        Route("/health", health),
        Route("/page.css", part(view.style, "text/css")),
        Route("/page.js", part(view.script, "text/javascript")),
        Route("/icon.svg", part(view.icon, "image/svg+xml")),
    ]
    handlers = {
        MmsaError: _failed,
        HTTPException: _not_served,
        ClientDisconnect: _gone,
        OSError: _unable,
        Exception: _broken,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, limits)


async def _post_of(request: Request) -> Question:
    """The post of a request: a form, or JSON with the picture in base64; ``text`` and ``image``.

    Raises:
        HTTPException: It is neither.
        DataError: The JSON is not that of a post.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(await request.body())
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise HTTPException(415, "Send a form with text and image, or JSON.")
    if "charset" in request.headers.get("content-type", "").lower():  # of Python's odd ones too
        raise HTTPException(415, "Send the form in UTF-8, with no charset named.")
    async with request.form(max_files=1, max_fields=1, max_part_size=MOST_TEXT) as form:
        text, image = form.get("text"), form.get("image")
        picture = await image.read() if isinstance(image, UploadFile) else None
    return Question(text if isinstance(text, str) else None, picture or None)


def _from_json(body: bytes) -> Question:
    try:
        if sum(map(body.count, (b",", b"[", b"{"))) > MOST_TEXT:  # base64 has none
            raise ValueError("it holds more than a text and a picture")
        content = object_at(parse_json(body))
        text, image = (_string(content.get(name)) for name in ("text", "image"))
        if len(text or "") > MOST_TEXT:
            raise ValueError(f"its text is longer than {MOST_TEXT} characters")
        return Question(text, base64.b64decode(image, validate=True) if image else None)
    except ValueError as error:
        raise DataError(
            f"The post cannot be read: {error}.", 'Send {"text": …, "image": BASE64}.'
        ) from error


def _string(value: Json) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("text and image must be strings")
    return value


@contextlib.contextmanager
def _on_disk(picture: bytes | None) -> Iterator[Path | None]:
    """A picture as a file, which is what the decoder reads; messages call it ``picture``."""
    if picture is None:
        yield None
        return
    with scratch() as folder:
        path = folder / "picture"
        write_new(path, picture)
        try:
            yield path
        except DataError as error:
            found = "; ".join(dict.fromkeys(error.problems)) or error.message
            raise DataError(found.replace(f"{folder}/", "") + ".", error.hint) from error


def _html(page: str, policy: str = POLICY, status: int = 200) -> Response:
    return HTMLResponse(page, status, {_POLICY: policy})


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, MmsaError)
    mistaken = isinstance(error, DataError | SettingsError)
    return said(400 if mistaken else 500, f"{error.message} {error.hint}".strip())


def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return said(error.status_code, error.detail)


def _gone(request: Request, error: Exception) -> Response:
    return said(400, "The rest of the post did not come.")


def _unable(request: Request, error: Exception) -> Response:
    """The disk of temporary files is full, or descriptors are few."""
    assert isinstance(error, OSError)
    say(f"A post was not answered: {error.strerror or error}.")
    return said(503, "The server has no room for this post now.")


def _broken(request: Request, error: Exception) -> Response:
    return said(500, "The server failed; its terminal says why.")
