"""Searches in PostgreSQL, whose server goes away at any moment."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy

from fuse.search import address, locks
from fuse.search.choice import summarise_studies
from fuse.search.ledger import Ledger
from fuse.search.study_record import Selection, StudyRecord
from mmsa_cache.errors import MmsaError
from tests.support.coordinators import kill, result, run_here, start, wait_for_trainings
from tests.support.coordinators import two_coordinators as share
from tests.support.fake_search import FakeFit
from tests.support.postgres import Server, running_server
from tests.support.study_records import figures, states


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


class _Outage(FakeFit):
    """The server goes away as the 5th training and the first judgement begin."""

    server: Server
    length: float
    at = (5, 10)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        fitted = super().__call__(*arguments, **options)
        if len((self.folder / "trainings.txt").read_text().splitlines()) in self.at:
            self.server.away(self.length)
        return fitted


@pytest.mark.parametrize("seconds", [1.0, pytest.param(60.0, marks=pytest.mark.faults)])
def test_a_server_that_is_away_is_waited_for(
    tmp_path: Path, server: Server, seconds: float
) -> None:
    storage = server.fresh(f"away{seconds:.0f}")
    for folder in ("with", "without"):
        (tmp_path / folder).mkdir()
    without = run_here(tmp_path / "s.db", tmp_path / "without", 3)
    _Outage.server, _Outage.length = server, seconds
    found = run_here(storage, tmp_path / "with", 3, fit=_Outage(tmp_path / "with"))
    for changing in ("seconds", "overhead_share", "storage"):
        del found[changing], without[changing]
    assert found == without
    assert figures(storage) == figures(tmp_path / "s.db")
    trainings = (tmp_path / "with/trainings.txt").read_text().splitlines()
    assert len(trainings) == 3 * 3 + 3, "something was trained twice"
    server.away(1.0)
    assert [summary.complete for summary in summarise_studies(storage)] == [3]
    server.away(1.0)
    Ledger(storage, "fake").close()


def test_a_lock_that_went_with_the_server_may_be_another_ones(server: Server) -> None:
    """What one that has lost it worked out from an old record is not stored."""
    storage = server.fresh("lock")
    known = []

    def choice(trial: int) -> Callable[[StudyRecord], dict[str, Selection]]:
        return lambda record: {"selection": Selection(how="best", trial=trial)}

    with closing(Ledger(storage, "s")) as one, closing(Ledger(storage, "s")) as other:

        def work(record: StudyRecord) -> Mapping[str, Selection]:
            known.append(record.selection)
            if record.selection is not None:
                return {}
            server.away(0.2)
            other.change("judge", choice(7))
            return choice(1)(record)

        assert one.change("judge", work) == other.record()
        assert known == [None, Selection(how="best", trial=7)]


@pytest.mark.parametrize(("away", "is_back"), [(60, True), (120, False)])
@pytest.mark.parametrize("worked", [0, 3600])
def test_what_counts_is_how_long_it_is_away_and_not_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, worked: float, away: float, is_back: bool
) -> None:
    """An hour's judgement may be the moment before."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def call() -> str:
        if not now[0]:
            sleep(worked)
        sleep(5)  # until the connection is refused
        if now[0] < worked + away:
            raise sqlalchemy.exc.InterfaceError("select", {}, Exception("network error"))
        return "done"

    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    if is_back:
        assert locks.retry_until_available(call, "db") == "done"
    else:
        with pytest.raises(MmsaError, match=r"db does not answer.*network error"):
            locks.retry_until_available(call, "db")
    assert now[0] < worked + away + 15


def test_two_coordinators_share_a_fresh_database(tmp_path: Path, server: Server) -> None:
    share(server.fresh("shared"), tmp_path)


@pytest.mark.faults
def test_a_server_that_restarts_and_a_killed_coordinator_lose_nothing(
    tmp_path: Path, server: Server
) -> None:
    storage = server.fresh("restarted")
    first, second = (start(storage, tmp_path, 20, workers=1, seconds=0.05) for _ in range(2))
    wait_for_trainings(tmp_path, 12)
    server.away(0)
    wait_for_trainings(tmp_path, 24)
    kill(first)
    assert result(second)["trials"]["complete"] == 20
    assert states(storage) == {"COMPLETE": 20}


def test_a_connection_notices_that_the_other_end_is_gone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        address._open_socket(*listening.getsockname()) as connected,
    ):
        assert connected.gettimeout() is None
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_what_the_driver_lets_through_is_an_error_of_the_database() -> None:
    """A server that is just being killed takes the connection and resets it."""
    pytest.importorskip("pg8000")
    reset = struct.pack("ii", 1, 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            taken, _ = listening.accept()
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            taken.recv(1)
            taken.close()

        thread = threading.Thread(target=serve)
        thread.start()
        place = "postgresql://me@{}:{}/db".format(*listening.getsockname())
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            address.parse_address(place).engine().connect()
        thread.join()
