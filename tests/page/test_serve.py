"""``mmsa serve`` as a process of its own: what it answers, whom, and how much at once."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmsa_cache import load_model
from mmsa_cache.page.nearest import NEAREST
from tests.support.browser import opened_browser, seen
from tests.support.served import Server, coded, form, png, serving
from tests.support.small_work import QUICK, call, make_work

TEXT, PICTURE = "good day sun", "posts/pairs/3.jpg"
PROGRAM = "Ask from a program"
HOSTILE = "<script>document.title = 'broken'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Iterator[Server]:
    folder = make_work(tmp_path_factory.mktemp("work"), text_model)
    call(folder, "train", "--name", "run", *QUICK)
    with serving(folder, "--run", "run", "--queue", "8", "--max-mb", "1") as found:
        yield found


def test_a_program_gets_what_predict_says(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(server.folder)
    wanted = load_model("run").predict(TEXT, PICTURE)
    picture = (server.folder / PICTURE).read_bytes()
    as_form = server.ask(
        "POST", "/predict", **form(("text", "", TEXT.encode()), ("image", "a.jpg", picture))
    )
    as_json = server.ask("POST", "/predict", {"text": TEXT, "image": coded(picture)})
    assert as_form.json == as_json.json
    assert as_json.json["probabilities"] == pytest.approx(wanted)
    assert as_json.json["tag"] == max(wanted, key=lambda name: wanted[name])
    half = server.ask("POST", "/predict", {"text": TEXT}).json
    assert "whole pairs" in half["notes"][0]
    health = server.ask("GET", "/health").json
    assert (health["status"], health["run"]) == ("ok", "run")
    assert health["classes"] == list(wanted)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "neither a text nor a picture"),
        ({"text": " "}, 400, "neither a text nor a picture"),
        ({"text": ["a"]}, 400, "must be strings"),
        ({"text": "\ud800"}, 400, "no Unicode text"),
        ([1], 400, "no JSON object"),
        ({"image": "***"}, 400, "cannot be read"),
        ({"image": coded(b"<svg/>")}, 400, "picture: content is none of JPEG"),
        ({"image": coded(png(9000, 9000))}, 400, "picture: 9000×9000 pixels"),
        ({"image": coded(png(4, 400))}, 400, "shorter than 8"),
        (b"text=a", 415, "Send a form"),
        ({"image": "http://127.0.0.1/a.png"}, 400, "cannot be read"),
        ({"image": "/etc/passwd+"}, 400, "picture: content is none of"),
        ({"text": "a" * 65_537}, 400, "longer than 65536 characters"),
        ({"text": "a", "more": [[]] * 65_537}, 400, "more than a text and a picture"),
    ],
)
def test_what_is_no_post_is_refused_in_words(
    server: Server, body: Any, status: int, said: str
) -> None:
    reply = server.ask("POST", "/predict", body)
    assert reply.status == status, reply.body
    assert said in reply.json["error"]
    assert "/tmp" not in reply.json["error"]


@pytest.mark.parametrize("length", ["Content-Length: 52428800", "Transfer-Encoding: chunked"])
def test_fifty_megabytes_are_not_read(server: Server, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        lines = (
            "POST /predict HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            length,
        )
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        if "chunked" in length:
            for _ in range(3):
                connection.sendall(b"80000\r\n" + b"a" * 0x80000 + b"\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 413
        assert b"larger than the limit of 1 MB" in response.read()


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "utf-16"])
def test_forms_are_in_utf8(server: Server, charset: str) -> None:
    content = form(("text", "", b"a"))
    content["Content-Type"] += f"; charset={charset}"
    reply = server.ask("POST", "/predict", **content)
    assert (reply.status, "UTF-8" in reply.json["error"]) == (415, True)
    assert server.ask("POST", "/predict", **form(("text", "", b"a" * 65_537))).status == 400


def test_who_leaves_in_the_middle_of_a_post_leaves_no_traceback(server: Server) -> None:
    """`serving` looks at what the server has said."""
    for kind in ("application/json", "multipart/form-data; boundary=x"):
        lines = "POST / HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", "Content-Length: 9"
        for reset in (b"", struct.pack("ii", 1, 0)):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
                connection.sendall(b"--x")
                assert server.ask("GET", "/health").status == 200  # it has begun to read
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    assert server.ask("GET", "/health").status == 200


@pytest.mark.parametrize("missing", ["uvicorn", "python_multipart"])
def test_what_is_not_installed_is_named(
    server: Server, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("mmsa_cache.page")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    said = call(server.folder, "serve", "--run", "run", code=2)
    assert f"The page needs the package {missing}." in said
    assert "pip install 'mmsa[page]'" in said


def test_a_port_that_is_taken_is_named(server: Server) -> None:
    said = call(server.folder, "serve", "--run", "run", "--port", str(server.port), code=2)
    assert f"127.0.0.1:{server.port} cannot be listened on" in said
    assert "--port" in said


def test_strangers_are_turned_away(server: Server) -> None:
    post = {"text": TEXT}
    assert server.ask("GET", "/", Host="evil.example").status == 403
    assert server.ask("POST", "/predict", post, Origin="http://evil.example").status == 403
    assert server.ask("POST", "/predict", post, Origin="null").status == 403
    own = f"127.0.0.1:{server.port}"
    assert server.ask("POST", "/predict", post, Origin=f"http://{own}").status == 200
    for site, mode, status in (
        ("cross-site", "no-cors", 403),
        ("same-site", "no-cors", 403),
        ("same-origin", "cors", 200),
        ("cross-site", "navigate", 200),
    ):
        fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        assert server.ask("GET", "/errors", **fetched).status == status
    for path in (
        "/mmsa.toml",
        "/runs/run/config.json",
        "/..%2fmmsa.toml",
        "/page.css/../mmsa.toml",
    ):
        assert server.ask("GET", path).status == 404, path
    assert server.ask("PUT", "/predict").status == 405


def test_every_response_says_what_a_browser_may_do(server: Server) -> None:
    frames = "frame-ancestors 'none'", "frame-ancestors 'self'"
    for path in ("/", "/page.css", "/page.js", "/health", "/report", "/errors", "/nothing"):
        headers = server.ask("GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert frames[path in ("/report", "/errors")] in policy, path
        assert "unsafe-inline" not in policy or policy.startswith("sandbox"), path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


def test_two_hundred_posts_at_once_are_answered_or_told_to_come_again(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    server.ask("POST", "/predict", {"text": TEXT})
    before = process.memory_info().rss
    bad = coded(bytes(500_000))
    posts = [{"text": TEXT} if n % 2 else {"text": TEXT, "image": bad} for n in range(200)]
    with ThreadPoolExecutor(200) as pool:
        replies = list(pool.map(lambda post: server.ask("POST", "/predict", post), posts))
    statuses = {reply.status for reply in replies}
    assert {200, 503} <= statuses <= {200, 400, 503}
    turned_away = [reply for reply in replies if reply.status == 503]
    assert all(int(reply.headers["Retry-After"]) > 0 for reply in turned_away)
    assert server.ask("POST", "/predict", {"text": TEXT}).status == 200
    assert process.memory_info().rss - before < 64 << 20
    assert all(found.laddr.ip == "127.0.0.1" for found in process.net_connections())


def test_a_large_report_is_not_in_memory_for_each_who_reads_it(server: Server) -> None:
    page = server.folder / "runs/run/report.html"
    before = page.read_bytes()
    page.write_bytes(before + bytes(64 << 20))
    process = psutil.Process(server.process.pid)
    rss = process.memory_info().rss
    readers = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(8)]
    try:
        for reader in readers:
            reader.request("GET", "/report")
            assert reader.getresponse().read(len(before)) == before
        assert process.memory_info().rss - rss < 64 << 20
    finally:
        for reader in readers:
            reader.close()
        page.write_bytes(before)
    assert server.ask("GET", "/report").body == before


def test_a_full_disk_is_said_without_a_traceback(server: Server) -> None:
    """Of the temporary files, which a limit of file size stands for."""
    picture = (server.folder / PICTURE).read_bytes() + bytes(900_000)
    pid = server.process.pid
    before = psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE)
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        for path in ("/predict", "/"):
            reply = server.ask("POST", path, **form(("image", "a.jpg", picture)))
            assert reply.status == 503
            assert "no room" in reply.json["error"]
    finally:
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, before)
    assert server.ask("POST", "/predict", {"text": TEXT}).status == 200


def test_texts_stay_text_in_the_page_without_scripts(server: Server) -> None:
    reply = server.ask("POST", "/", **form(("text", "", f"{HOSTILE} good".encode())))
    page = reply.body.decode()
    assert reply.status == 200
    assert HOSTILE not in page
    assert "&lt;script&gt;document.title" in page  # still in its field
    assert '<table class="bars"' in page
    missing = server.ask("POST", "/", **form(("text", "", b"")))
    assert missing.status == 400
    assert "neither a text nor a picture" in missing.body.decode()


def test_errors_are_listed_by_class(server: Server) -> None:
    every = server.ask("GET", "/errors").body.decode()
    assert "wrong predictions on the" in every
    some = server.ask("GET", "/errors?true=negative&predicted=negative").body.decode()
    assert "0 of 0 wrong predictions" in some
    assert '<option value="negative" selected>' in some
    odd = server.ask("GET", "/errors?true=%3Cscript%3E").body.decode()
    assert "<script" not in odd
    assert "<h1>Run run</h1>" in server.ask("GET", "/report").body.decode()


# What follows is done in a browser.


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Any]:
    """A browser that logs its console and every request."""
    with opened_browser() as found:
        yield found


def send(browser: Any, text: str, picture: Path | None) -> str:
    """Types a text, chooses a picture and presses the button; what the page says then."""
    browser.find_element("id", "text").send_keys(text)
    if picture is not None:
        browser.find_element("id", "image").send_keys(str(picture))
    browser.find_element("css selector", "[type=submit]").click()
    return str(seen(browser, "#answer h2, #answer .error").text)


def test_somebody_types_chooses_and_sees_the_label(server: Server, browser: Any) -> None:
    picture = server.folder / PICTURE
    wanted = server.ask("POST", "/predict", {"text": TEXT, "image": coded(picture.read_bytes())})
    browser.get(server.url)
    assert send(browser, TEXT, picture) == wanted.json["tag"]
    shown = [cell.text for cell in browser.find_elements("css selector", ".bars td:last-child")]
    assert shown == [f"{100 * p:.1f} %" for p in wanted.json["probabilities"].values()]
    preview = browser.find_element("id", "preview")
    assert preview.is_displayed()
    assert int(preview.get_property("naturalWidth")) == 30
    neighbours = browser.find_elements("css selector", ".nearest li")
    assert len(neighbours) == NEAREST
    assert len(browser.find_elements("css selector", ".nearest img")) == NEAREST
    browser.find_element("css selector", "[type=reset]").click()
    assert not browser.find_elements("css selector", "#answer *")
    assert not preview.is_displayed()


def test_what_is_wrong_is_said_on_the_page(server: Server, browser: Any, tmp_path: Path) -> None:
    browser.get(server.url)
    assert "neither a text nor a picture" in send(browser, "", None)
    bomb, large = tmp_path / "bomb.png", tmp_path / "large.png"
    bomb.write_bytes(png(9000, 9000))
    large.touch()
    os.truncate(large, 50 << 20)
    for file, said in ((bomb, "9000×9000 pixels"), (large, "larger than the limit of 1 MB")):
        browser.get(server.url)
        assert said in send(browser, TEXT, file)


def test_html_of_a_post_is_text(server: Server, browser: Any) -> None:
    browser.get(server.url)
    send(browser, f'{HOSTILE}"><img src=x onerror="document.title=1"> 晴れ', None)
    assert browser.title == "run · mmsa"


def test_a_phone_scrolls_down_only(server: Server, browser: Any) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(server.url)
    send(browser, TEXT, server.folder / PICTURE)
    widths = "return [document.documentElement.scrollWidth, innerWidth]"
    for part in ("report", "errors", "try"):
        browser.find_element("css selector", f"[href='#{part}']").click()
        assert browser.execute_script(widths) == [390, 390]
        sections = browser.find_elements("css selector", "main > section")
        assert [s.get_attribute("id") for s in sections if s.is_displayed()] == [part]
        (current,) = browser.find_elements("css selector", "[aria-current=page]")
        assert current.get_attribute("hash") == f"#{part}"
        for frame in browser.find_elements("css selector", f"#{part} iframe"):
            browser.switch_to.frame(frame)
            seen(browser, ".gallery, section")
            scrolled, width = browser.execute_script(widths)
            assert scrolled <= width == 390
            browser.switch_to.default_content()
    assert browser.find_element("css selector", "#answer h2").is_displayed()  # it is still there
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_field_has_a_name_and_the_keyboard_reaches_all(server: Server, browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.get(server.url)
    unnamed = (
        "return [...document.querySelectorAll('textarea, input')].filter(e => !e.labels.length)"
    )
    assert browser.execute_script(unnamed) == []
    reached = []
    for _ in range(9):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        element = browser.switch_to.active_element
        reached.append(element.get_attribute("id") or element.text)
    assert reached[:8] == ["Try", "Report", "Errors", "text", "image", "Predict", "Clear", PROGRAM]


def test_the_browser_asked_no_other_host_and_complained_of_nothing(
    server: Server, browser: Any
) -> None:
    """The last one: looks back at all that was done here."""
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert [said for said in complaints if " 400 (Bad Request)" not in said] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert f"{server.url}page.js" in asked
    assert {url for url in asked if not url.startswith((server.url, "data:", "blob:"))} == set()
