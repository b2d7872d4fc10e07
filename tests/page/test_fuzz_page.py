"""Requests to the page with anything in them, in this process: an answer, or a refusal in words."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from extract.inputs.decode import read_picture
from mmsa_cache.data.pairs import read_sample_picture, read_valid_picture
from mmsa_cache.data.scan import single_sample
from mmsa_cache.page.answers import Answer, Answers
from mmsa_cache.page.guard import Limits
from mmsa_cache.page.service import make_app
from mmsa_cache.page.view import View
from tests.support.data_folders import noise, saved
from tests.support.fuzzing import EXAMPLES, Random, altered, mutated, series
from tests.support.tally import Tally

LIMITS = Limits(picture=64 << 10, waiting=8)
CLASSES = ["positive", "neutral", "negative"]
PICTURE = saved(noise(0))
STATUSES = {200, 307, 400, 403, 404, 405, 408, 413, 415, 503}


def answer(text: str | None, image: Path | None) -> Answer:
    """What a model would do with a post until it is encoded."""
    sample = single_sample(text, image)
    if sample.image_path is not None:
        read_valid_picture(sample.image_path.parent, sample.image_path.name)
        read_picture(read_sample_picture(sample), "picture", 64)
    return Answer("positive", dict.fromkeys(CLASSES, 1 / 3), [])


class OnlyPages:
    """The pages without a run: what a request says is all that they show."""

    name, style, script, icon = "run", "", "", ""

    def page(self, text: str | None = None, *of: Any, error: Any = None) -> str:
        return f"{text} {error}"

    def report(self) -> str:
        return "report"

    def errors(self, true: str, predicted: str) -> str:
        return f"{true} {predicted}"


ANSWERS = SimpleNamespace(
    model=SimpleNamespace(classes=CLASSES),
    answer=answer,
    explain=lambda text, image: (answer(text, image), None),
)
APP = make_app(cast(Answers, ANSWERS), cast(View, OnlyPages()), "127.0.0.1", LIMITS)


async def ask(method: str, path: str, headers: list[tuple[bytes, bytes]], body: list[bytes]) -> int:
    """The status of a request; its response is whole."""
    sent: list[Any] = []
    parts = [*body]

    async def receive() -> Any:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode("utf-8", "surrogatepass"),
        "query_string": query.encode("utf-8", "surrogatepass"),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
    }
    await APP(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    assert not sent[-1].get("more_body")
    names = {name for name, _ in sent[0]["headers"]}
    assert b"content-security-policy" in names
    return int(sent[0]["status"])


def json_body(chosen: Random) -> bytes:
    picture = base64.b64encode(mutated(chosen, [PICTURE]) if chosen.random() < 0.5 else PICTURE)
    post: Any = {"text": "good day", "image": picture.decode()}
    if chosen.random() < 0.7:
        post = altered(chosen, post)
    data = json.dumps(post, ensure_ascii=chosen.random() < 0.7).encode("utf-8", "surrogatepass")
    return mutated(chosen, [data]) if chosen.random() < 0.4 else data


def form_body(chosen: Random) -> bytes:
    """A form of parts that it has, has twice, or has not."""
    lines = b""
    for _ in range(chosen.choice((1, 2, 2, 2, 3, 30))):
        name = chosen.choice(("text", "image", "image", "x", "", 'a"b', "text\0"))
        file = chosen.choice(
            ("", "", '; filename="a.jpg"', '; filename="../../x"', "; filename*=x")
        )
        value = chosen.choice((PICTURE, b"good day", b"", b"\xff\xfe", b"x" * 3000, b"--x\r\n"))
        kind = chosen.choice(("", "", "Content-Type: image/jpeg\r\n", "Content-Type: \xff\r\n"))
        kind += chosen.choice(
            ("", "", "", "Content-Transfer-Encoding: base64\r\n", "A: b\r\n" * 50)
        )
        lines += b'--x\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
        lines += file.encode() + b"\r\n" + kind.encode("latin-1") + b"\r\n" + value + b"\r\n"
    lines += b"--x--\r\n"
    return mutated(chosen, [lines]) if chosen.random() < 0.5 else lines


KINDS = (
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=y",
)
KINDS += (b"multipart/form-data; boundary=" + b"x" * 300, b"application/x-www-form-urlencoded")
KINDS += (
    b"application/json; charset=utf-16",
    b"text/plain",
    b"",
    b"\xff",
    b"multipart/mixed; boundary=x",
)
KINDS += (b'multipart/form-data; boundary="x', b"multipart/form-data; boundary=x; charset=none")
KINDS += (b"multipart/form-data; boundary=\xff", b"application/json")
HEADERS: tuple[tuple[bytes, tuple[bytes, ...]], ...] = (
    (b"host", (b"127.0.0.1", b"localhost:1", b"evil.example", b"", b"\xff", b"[::1", b"a" * 3000)),
    (b"origin", (b"http://127.0.0.1", b"null", b"http://evil.example", b"\xff")),
    (b"content-length", (b"0", b"-1", b"9" * 30, b"1e9", b"\xb2", b"", b"99999999")),
    (b"transfer-encoding", (b"chunked", b"gzip")),
    (b"content-encoding", (b"gzip", b"x")),
    (b"range", (b"bytes=0-", b"bytes=-1", b"x")),
    (b"cookie", (b"a=b", b"\xff=")),
    (b"expect", (b"100-continue",)),
)
PATHS = ("/", "/predict", "/errors", "/report", "/health", "/page.css", "/../etc/passwd", "//x", "")
PATHS += (
    "/errors?true=positive&predicted=%ff",
    "/errors?true=" + "x" * 3000,
    "/predict/",
    "/\ud800",
)
PATHS += ("/errors?true=\x00&true=a&predicted[]=1", "/%2e%2e/", "/predict?text=a", "/monitoring")


def request(chosen: Random) -> tuple[str, str, list[tuple[bytes, bytes]], list[bytes]]:
    method, path = ("POST", chosen.choice(("/predict", "/predict", "/")))
    if chosen.random() < 0.15:
        method = chosen.choice(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "TRACE", "é"))
        path = chosen.choice(PATHS)
    is_json = chosen.random() < 0.5
    body = json_body(chosen) if is_json else form_body(chosen)
    if not is_json and chosen.random() < 0.15:
        body = mutated(chosen, [b"text=good+day&image=x", b"text=%ff%00&text=a&" + b"a=b&" * 200])
    kind = b"application/json" if is_json else b"multipart/form-data; boundary=x"
    if chosen.random() < 0.1:
        kind = chosen.choice(KINDS)
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind)]
    if chosen.random() < 0.2:
        name, values = chosen.choice(HEADERS)
        headers = [header for header in headers if header[0] != name]
        headers.append((name, chosen.choice(values)))
    cut = chosen.randrange(len(body) + 1) if chosen.random() < 0.2 else 0
    return method, path, headers, [body[:cut], body[cut:]] if cut else [body]


@EXAMPLES
def test_requests(examples: int, tally: Tally) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def work(content: Any) -> None:
        if not loops:  # in the child
            loops.append(asyncio.new_event_loop())
        status = loops[0].run_until_complete(ask(*content))
        assert status in STATUSES, status

    tally("fuzzed requests to the page", examples, series(examples, request, work, own=()))
