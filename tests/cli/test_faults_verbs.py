"""Every verb where the system is unkind: odd paths, no home, locks, memory or permission."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conditions import Conditions, compiled_shim
from tests.support.fork_server import ForkServer
from tests.support.tally import Tally
from tests.support.verbs import FEW, MAKING, READING, WRITING, make_folder

pytestmark = pytest.mark.faults
ODD = "Mein Ordner, 漢字 & 'é' [x] #1 %20 $HOME *"
EVERY = [*MAKING, *READING, *WRITING]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return compiled_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, text_model: Path, shim: dict[str, str | None]
) -> Iterator[ForkServer]:
    """Commands in a folder with posts, under whatever conditions."""
    folder = tmp_path_factory.mktemp("verbs")
    make_folder(folder, text_model)
    server = ForkServer(folder, environ=shim)
    yield server
    server.close()


def run_all(
    server: ForkServer,
    commands: list[tuple[str, ...]],
    under: Conditions,
    codes: tuple[int, ...] = (0,),
) -> list[tuple[int, str]]:
    """Exit codes and what was said; other codes and tracebacks are failures."""
    ends, failures = [], []
    for command in commands:
        said = server.log.stat().st_size if server.log.exists() else 0
        ended = server.run(*command, under=under)
        text = server.said(said)
        ends.append((ended, text))
        if "Traceback" in text or ended not in codes:
            failures.append(f"{' '.join(command)}: {ended}: {text[-3000:]}")
    assert not failures, "\n\n".join(failures)
    return ends


def test_a_folder_of_an_odd_name_without_a_home(
    tmp_path: Path, text_model: Path, tally: Tally
) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    make_folder(folder, shutil.copytree(text_model, folder / "ein Modell ü"))
    nowhere = {name: None for name in os.environ if name.startswith(("XDG_", "HF_"))}
    server = ForkServer(folder, environ=nowhere | {"HOME": None, "USER": None, "LOGNAME": None})
    settings = (folder / "mmsa.toml").read_text()
    (folder / "mmsa.toml").unlink()
    try:
        run_all(server, [("init", "posts", "--yes")], Conditions(nobody=True))
        (folder / "mmsa.toml").write_text(settings)
        run_all(server, EVERY, Conditions(nobody=True))
    finally:
        server.close()
    assert not list(folder.rglob("~*")), "a folder has the name of the home"
    assert not list(folder.rglob(".tmp-*"))
    tally("verbs in a folder of an odd name, HOME unset, user unknown", len(EVERY), "all work")


def called_damage(end: tuple[int, str]) -> bool:
    text = end[1].replace("Nothing is damaged", "")
    return "damaged" in text or "elete" in text


@pytest.fixture
def fresh(server: ForkServer, tmp_path: Path) -> Path:
    """A folder like the server's, in which nothing was made yet."""
    for name in ("posts", "studies"):
        shutil.copytree(server.folder / name, tmp_path / name)
    shutil.copy(server.folder / "mmsa.toml", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(server: ForkServer) -> Path:
    """The server's folder, in which everything was made."""
    run_all(server, MAKING, Conditions())
    return server.folder


NO_FLOCK = [errno.ENOLCK, errno.ENOSYS]


@pytest.mark.parametrize("number", NO_FLOCK)
def test_locks_that_the_disk_does_not_know(
    server: ForkServer, fresh: Path, number: int, tally: Tally
) -> None:
    """As on network disks; two names cannot be exchanged there either."""
    environ = {"SHIM_FLOCK": str(number), "SHIM_RENAME": str(errno.EINVAL)}
    run_all(server, MAKING, Conditions(str(fresh), environ))
    assert not list(fresh.rglob("*.soft*")), "leases stay"
    held = "all work, no lease stays"
    tally(f"verbs where flock answers {errno.errorcode[number]}", len(MAKING), held)


def test_a_read_only_folder(server: ForkServer, made: Path, tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "read-only"
    shutil.copytree(made, folder)
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    run_all(server, READING, Conditions(str(folder), powerless=True))
    writing = [command for command in WRITING if command[2:3] != ("exported",)]
    ends = run_all(server, writing, Conditions(str(folder), powerless=True), (0, 5))
    said = (
        "Permission denied",
        "cannot be written to",
    )  # the latter by doctor, which tries nothing
    for code, text in ends:
        assert code == 0 or any(words in text for words in said), text
    code, text = ends[writing.index(("doctor",))]
    assert code == 5, "a folder in which no command can write"
    assert "BAD   disk" in text
    assert [folder, *folder.rglob("*")] == everything
    tally("verbs in a read-only folder", len(READING + writing), "work, or exit 5")


SPARE = [*range(0, 24 << 20, 2 << 20), 1 << 26, 1 << 28]


def test_too_little_address_space(server: ForkServer, made: Path, tally: Tally) -> None:
    for spare in SPARE:
        ends = run_all(server, HUNGRY, Conditions(spare=spare), (0, 5))
        assert not any(map(called_damage, ends)), ends
    run_all(server, READING, Conditions())
    tally("verbs under RLIMIT_AS", len(SPARE) * len(HUNGRY), "work, or exit 5, never called damage")


HUNGRY = [
    ("train", *FEW, "--summary"),
    ("evaluate", "--run", "one", "--labels", "posts/answers.csv"),
    ("predict", "--run", "two", "--text", "good day", "--image", "posts/pairs/1.jpg"),
    ("predict", "--run", "one", "--data", "posts/pairs", "--out", "new.csv", "--force"),
    ("cache", "verify"),
    ("compare", "one", "two"),
    ("extract", "--split", "all"),
]
"""Verbs that read the store, a run, encoders."""


@pytest.mark.parametrize("lasting", [False, True])
def test_files_that_cannot_be_mapped(
    server: ForkServer, made: Path, lasting: bool, tally: Tally
) -> None:
    """As where ``vm.max_map_count`` is reached."""
    times = failed = 0
    for at in (*range(1, 11), 15, 25):
        environ = {"SHIM_MAP": str(at), **({"SHIM_MAP_MANY": "1"} if lasting else {})}
        ends = run_all(server, HUNGRY, Conditions(environ=environ), (0, 5))
        assert not any(map(called_damage, ends)), ends
        failed += sum(code == 5 for code, _ in ends)
        times += len(ends)
    assert failed
    run_all(server, READING, Conditions())
    kind = " and from then on" if lasting else ""
    tally(f"ENOMEM of the n-th map{kind}, verbs", times, f"{failed} exit 5, never called damage")


BACK = 90_000
"""Seconds by which the clock was ahead, then jumps back."""


def test_a_clock_that_jumps_back(server: ForkServer, fresh: Path, tally: Tally) -> None:
    run_all(server, MAKING, Conditions(str(fresh), {"SHIM_CLOCK": str(BACK)}))
    for path in fresh.rglob("*"):  # which have the time of the system
        found = path.stat()
        os.utime(path, (found.st_atime + BACK, found.st_mtime + BACK))
    under = Conditions(str(fresh))
    again = [command for command in MAKING if command[0] != "train"]
    run_all(server, [*again, *READING], under)
    run_all(server, [("train", *FEW, "--set", "fusion=lowrank", "--name", "three")], under)
    ends = run_all(server, [("runs", "show", "latest"), ("runs", "ls"), *WRITING], under)
    assert "The latest run: three." in ends[0][1]
    listed = [line.split()[0] for line in ends[1][1].splitlines()]
    assert [name for name in listed if name in ("one", "two", "three")] == ["three", "two", "one"]
    times = len([*MAKING, *again, *READING, *ends]) + 1
    tally("verbs while the clock jumps back a day", times, "all work, latest is the last trained")
