"""The password of a database is shown nowhere, and need not stand on the command line."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fuse.search import passwords
from fuse.search.address import Address, parse_address
from fuse.search.ledger import Ledger
from fuse.search.snapshot import take_snapshot
from mmsa_cache.cli import main as command_line
from mmsa_cache.cli.arguments import mask_addresses
from mmsa_cache.console import say
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.runs.trackers import TRACKERS, TrackedRun, Tracker
from mmsa_cache.runs.tracking import tracking
from tests.lint import ROOT
from tests.support.small_work import mmsa

SECRET = "hush4711"
ADDRESSES = [
    f"postgresql://me:{SECRET}@127.0.0.1:1/db",
    f"postgresql://me@127.0.0.1:1/db?password={SECRET}",
    f"postgresql://me@127.0.0.1:1/db?application_name=x&password={SECRET}",
]
MALFORMED = [
    f"postgresql://me:{SECRET}@host:54x/db",
    f"postgresql://me:{SECRET}/host/db",
    f"postgresql://me:p@{SECRET}@host/db",
    f"postgresql://me:p@host/{SECRET}@db",
    f"postgresql://me@host/db?passwd={SECRET}",
    f"postgresql://me@host/db?password={SECRET}&password={SECRET}",
    f"postgresql//me:{SECRET}@host/db",
    f"mysql://me:{SECRET}@host/db",
    f"sqlite://me:{SECRET}@host/db",
    f"sqlite:///file:db?password={SECRET}",
    f"{SECRET}",
    "",
]


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuse.search.locks.PATIENCE", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_shown_without_its_password(text: str) -> None:
    address = parse_address(text)
    assert address.secrets() == {"password": SECRET}
    shown = [str(address), repr(address), f"{address}", repr(address.url), str(address.url)]
    shown += [address.url.render_as_string(hide_password=False), repr(address.password)]
    assert SECRET not in " ".join(shown)
    assert "me:***@127.0.0.1:1/db" in str(address)


@pytest.mark.parametrize("text", ADDRESSES)
def test_errors_of_the_driver_do_not_show_it(text: str) -> None:
    pytest.importorskip("pg8000")
    for opening in (lambda: Ledger(text, "s"), lambda: take_snapshot("s", 0, text)):
        with pytest.raises(MmsaError, match="does not answer") as raised:
            opening()
        error: BaseException | None = raised.value
        while error is not None:
            assert SECRET not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_addresses_are_not_repeated(tmp_path: Path, text: str, debug: list[str]) -> None:
    for way in (["--storage", text], [f"--storage={text}"]):
        result = mmsa(tmp_path, "search", "--list", *way, *debug, code=1 if debug else 2)
        assert SECRET not in result.output
        error = result.exception
        assert "--storage " in (result.output if not debug else str(error))
        while debug and error is not None:
            assert SECRET not in f"{error!r} {error}"
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_variable_is_a_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_STORAGE", MALFORMED[0])
    result = mmsa(tmp_path, "search", "--list", code=2)
    assert "no address" in result.output
    assert SECRET not in result.output
    monkeypatch.setenv("MMSA_STORAGE", "sqlite:///other/s.db")
    assert json.loads(mmsa(tmp_path, "search", "--list", "--json").stdout)
    assert not Path("other").exists()
    Path("mmsa.toml").write_text(f'storage = ["postgresql://me:{SECRET}@host/db"]')
    monkeypatch.delenv("MMSA_STORAGE")
    assert SECRET not in mmsa(tmp_path, "search", "--list", code=2).output


def test_what_is_kept_of_a_command_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, ablations and W&B keep sys.argv."""
    given: list[list[str]] = []
    monkeypatch.setattr(command_line, "app", lambda arguments: given.append(arguments))
    arguments = ["train", "--storage", ADDRESSES[0], f"--storage={MALFORMED[1]}", "--name=x=y"]
    monkeypatch.setattr(sys, "argv", ["mmsa", *arguments, "--storage", "sqlite:///s.db"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert given == [[*arguments, "--storage", "sqlite:///s.db"]]
    kept = ["train", "--storage", "***", "--storage=***", "--name=x=y"]
    assert sys.argv == ["mmsa", *kept, "--storage", "sqlite:///s.db"]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_in_any_argument_is_hidden(text: str) -> None:
    assert mask_addresses(["report", text, f"--run={text}"]) == ["report", "***", "--run=***"]
    plain = ["--note=a:b@c", "http://host:80/x", "--storage", "sqlite:///s.db", "--storage"]
    assert mask_addresses(plain) == plain


@pytest.mark.parametrize(
    "way", [None, pytest.param(["-m", "mmsa_cache"], marks=pytest.mark.faults)]
)
def test_a_password_is_taken_out_of_the_list_of_processes(
    tmp_path: Path, way: list[str] | None
) -> None:
    """By whatever it is started; a server that never answers keeps the search waiting."""
    script = tmp_path / "mmsa"
    script.write_text("import sys\nfrom mmsa_cache.__main__ import main\nsys.exit(main())\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"postgresql://me:{SECRET}@127.0.0.1:{server.getsockname()[1]}/db"
        own = ["search", "--list", "--storage", place]
        command = [sys.executable, *(way or [str(script)]), *own]
        environment = {"PYTHONPATH": str(ROOT), "PATH": os.defpath}
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as search:
            try:
                server.settimeout(60)
                with server.accept()[0]:
                    process = psutil.Process(search.pid)
                    shown, children = process.cmdline(), process.children()
            finally:
                search.kill()
    assert not children
    assert shown == [*command[: -len(own)], "search", "--list", "--storage", "***"]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_sent_to_no_other_process(text: str) -> None:
    """Not as an argument of an actor, nor in what a pool gives its workers."""
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(parse_address(text))
    plain = parse_address("postgresql://me@host/db")
    assert pickle.loads(pickle.dumps(plain)) == plain


def pgpass(folder: Path, *lines: str, mode: int = 0o600) -> None:
    file = folder / ".pgpass"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(mode)


@pytest.mark.parametrize(
    ("lines", "password"),
    [
        (["host:5432:db:me:a"], "a"),
        (["# host:5432:db:me:no", "", "broken", "host:5433:db:me:no", "host:*:*:me:b"], "b"),
        (["other:*:*:*:no", "*:*:*:*:c", "host:5432:db:me:late"], "c"),
        ([r"host:5432:db:me:p\:q\\r"], r"p:q\r"),
        (["host:5432:db:you:no"], None),
        (["localhost:5432:db:me:no"], None),
    ],
)
def test_the_password_file(tmp_path: Path, lines: list[str], password: str | None) -> None:
    pgpass(tmp_path, *lines)
    wanted = {} if password is None else {"password": password}
    assert parse_address("postgresql://me@host/db").secrets() == wanted
    assert parse_address("postgresql://me:own@host/db").secrets() == {"password": "own"}


def test_a_password_file_that_others_may_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pgpass(tmp_path, f"*:*:*:*:{SECRET}", mode=0o640)
    address = parse_address("postgresql://me@host/db")
    assert address.secrets() == {}
    said = " ".join(capsys.readouterr().err.split())
    assert ".pgpass is not used: others may read it" in said
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").write_text("host:*:*:*:there")
    (tmp_path / "elsewhere").chmod(0o600)
    assert address.secrets() == {"password": "there"}
    monkeypatch.setenv("PGPASSFILE", "/dev/zero")
    assert address.secrets() == {}
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert address.secrets() == {"password": SECRET}
    assert passwords.find_password(address.url) is not None
    assert SECRET not in f"{address} {address!r}"


@pytest.mark.parametrize("place", [Path("a?b {x} %20/s.db"), "sqlite:///a%3Fb {y}/s.db"])
def test_a_file_of_any_name_is_the_file(tmp_path: Path, place: Path | str) -> None:
    Ledger(place, "s").close()
    file = parse_address(place).file
    assert file is not None
    assert file.is_file()
    assert isinstance(parse_address(file), Address)


def test_weights_and_biases_keeps_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")

    def track(arguments: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["mmsa", *mask_addresses(arguments)])
        TRACKERS["wandb"][0](TrackedRun("r", Path("runs/r"), {})).close({})

    track(["search", "--storage", ADDRESSES[0]])
    wandb.teardown()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_what_a_tracker_says_of_its_server_has_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As MLFLOW_TRACKING_URI, or the settings of W&B."""

    def fail(place: TrackedRun) -> Tracker:
        raise RuntimeError(
            f"http://me:{SECRET}@host:1/api and postgresql://me:p@{SECRET}@host/db refuse, "
            f"so does postgresql://host/db?user=me&password={SECRET}&x=y; "
            "http://host:8080/@me does not"
        )

    monkeypatch.setitem(TRACKERS, "mlflow", (fail, "mlflow"))
    with (
        pytest.raises(SettingsError, match="Tracking by mlflow cannot begin: RuntimeError") as said,
        tracking(["mlflow"], TrackedRun("r", Path("runs/r"), {})),
    ):
        pass
    say(str(said.value))
    shown = " ".join(capsys.readouterr().err.split())
    assert "http://me:***@host:1/api and postgresql://me:***@host/db refuse" in shown
    assert "so does postgresql://host/db?user=me&password=***&x=y; " in shown
    assert "http://host:8080/@me does not → See to that, or leave out --track mlflow" in shown


@pytest.mark.parametrize("arguments", [["search"], ["search", "--study"], ["report"], []])
def test_an_address_in_a_wrong_place_is_repeated_without_its_password(
    tmp_path: Path, arguments: list[str]
) -> None:
    result = mmsa(tmp_path, *arguments, ADDRESSES[0], code=4 if arguments == ["report"] else 2)
    assert "postgresql://me:***@127.0.0.1:1/db" in result.output
    assert SECRET not in result.output


def test_malformed_addresses_are_errors_of_settings() -> None:
    for text in MALFORMED:
        with pytest.raises(SettingsError, match="--storage") as raised:
            parse_address(text)
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
