"""``mmsa search --dashboard``: Optuna's dashboard of a database, which it only reads."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from fuse.search.address import parse_address
from fuse.search.database import open_read_only
from mmsa_cache.compose.search import dashboard as dashboard_module
from mmsa_cache.compose.search.dashboard import dashboard
from mmsa_cache.errors import SettingsError


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dashboard") / "studies" / "studies.db"


@pytest.fixture(scope="module")
def place(database: Path) -> Iterator[str]:
    """Host and port of a dashboard of one study with a trial."""
    with dashboard(parse_address(database)) as url:
        study = optuna.create_study(storage=f"sqlite:///{database}", study_name="<b>quick</b>")
        study.tell(study.ask({"alpha": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
        yield urlsplit(url).netloc


def ask(place: str, path: str, method: str = "GET", host: str = "") -> tuple[int, str, str]:
    """Status, body, and what the browser is allowed."""
    connection = HTTPConnection(place, timeout=10)
    connection.request(method, path, headers={"Host": host or place})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.getheader("Content-Security-Policy", "")
    connection.close()
    return found


def test_the_studies_are_shown_while_others_write_them(place: str) -> None:
    assert place.startswith("127.0.0.1:")
    (summary,) = json.loads(ask(place, "/api/studies")[1])["study_summaries"]
    assert summary["study_name"] == "<b>quick</b>"
    status, study, _ = ask(place, f"/api/studies/{summary['study_id']}?after=0")
    assert status == 200
    assert [trial["values"] for trial in json.loads(study)["trials"]] == [[0.5]]


def test_the_page_may_ask_no_other_host(place: str) -> None:
    status, page, allowed = ask(place, "/dashboard")
    assert status == 200
    assert "default-src 'self'" in allowed
    assert "connect-src 'self'" in allowed
    assert 'src="http' not in page


def test_nothing_is_written(place: str, database: Path) -> None:
    before = database.read_bytes()
    for method, path in (
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
    ):
        assert ask(place, path, method)[0] == 405
    with open_read_only(parse_address(database)) as storage, pytest.raises(StorageInternalError):
        storage.delete_study(1)
    assert database.read_bytes() == before


def test_a_page_that_was_led_here_by_another_name_gets_nothing(place: str) -> None:
    port = place.partition(":")[2]
    assert ask(place, "/api/studies", host=f"localhost:{port}")[0] == 200
    for host in (f"evil.example:{port}", "evil.example", "localhost", f"127.0.0.1.evil:{port}"):
        assert ask(place, "/api/studies", host=host)[0] == 403


def test_connections_have_a_number_and_a_time(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard_module, "_MAX_CONNECTIONS", 3)
    monkeypatch.setattr(dashboard_module._Handler, "timeout", 0.5)
    with dashboard(parse_address(database)) as url, contextlib.ExitStack() as stack:
        place = urlsplit(url).netloc
        host, _, port = place.partition(":")
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(3)
        ]
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            ask(place, "/api/studies")
        assert [one.recv(1) for one in silent] == [b""] * 3
        assert ask(place, "/api/studies")[0] == 200
    assert capsys.readouterr().err == ""


def test_it_ends_with_the_search(database: Path) -> None:
    with dashboard(parse_address(database)) as url:
        assert ask(urlsplit(url).netloc, "/api/studies")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(urlsplit(url).netloc, "/api/studies")


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    shown = dashboard(parse_address(tmp_path / "studies.db"))
    with pytest.raises(SettingsError, match="needs the package optuna_dashboard") as caught, shown:
        pass
    assert "mmsa[dashboard]" in caught.value.hint
    assert not [*tmp_path.iterdir()]
