"""Rows that are read by processes: the same bytes, the same errors, and nothing that stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from extract.encoders.image import resolve_image
from extract.encoders.lexicon import resolve_lexicon
from extract.encoders.ngrams import resolve_ngrams
from extract.encoders.text import resolve_text
from extract.inputs.decode import needed_side
from extract.plan import RowPlan, plan_rows
from extract.reading import processes, reading
from extract.reading.readers import PictureReader, TextReader
from extract.reading.reading import preload_processes, should_use_processes
from mmsa_cache.data.pairs import ABSENT, Sample
from mmsa_cache.errors import DataError, ModelError
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.native.processes import can_fork
from tests.support.extraction import CPU, LENGTHS, make_rows, read, run
from tests.support.forked import start_fresh
from tests.support.row_readers import FOUR, Failing, Numbered, Prepared, read_by_others
from tests.support.rows import row_bytes

pytestmark = pytest.mark.skipif(not can_fork(), reason="readers are forked")


def by_processes_of(root: Path, rows: RowPlan, encoder: Any, reader: Any, **changes: Any) -> Any:
    return run(root, rows, encoder, reader, threads=FOUR, processes=True, **changes)


@pytest.fixture(autouse=True)
def started_as_for_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server of forks: this process has threads, which a fork would lack."""
    monkeypatch.setattr(processes, "start_process", start_fresh)


@pytest.fixture
def all_by_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No row is read by a thread because a process is not ready yet."""
    waits = processes.ReadingProcesses._acquire
    monkeypatch.setattr(
        processes.ReadingProcesses, "_acquire", lambda self, *, wait: waits(self, wait=True)
    )
    begins = processes.ReadingProcesses.__init__

    def begin(self: processes.ReadingProcesses, count: int) -> None:
        begins(self, count)
        limit = time.monotonic() + 60
        while not self._alive and time.monotonic() < limit:
            time.sleep(0.01)

    monkeypatch.setattr(processes.ReadingProcesses, "__init__", begin)
    yield
    limit = time.monotonic() + 20  # the last ones may be ended by the thread that started them
    while (left := readers_of(os.getpid())) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not left


def readers_of(parent: int) -> list[int]:
    """Reading processes: children of the process that a process's workers are forked from."""
    found = psutil.Process(parent).children(recursive=True)
    servers = [child for child in found if "forkserver" in " ".join(command(child))]
    return [child.pid for child in servers if child.ppid() != parent]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def text_samples(count: int) -> list[Sample]:
    words = ["good", "bad", "day", "sun", "rain", "happy", "sad", "café"]
    texts = [" ".join(words[(i * j) % 8] for j in range(1 + i % 13)) for i in range(count)]
    texts[3] = ""
    return [
        Sample(str(i), 0, text, None, sha256(str(i).encode()).hexdigest(), ABSENT)
        for i, text in enumerate(texts)
    ]


def picture_samples(folder: Path, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        path = folder / f"{i}.{'png' if i % 3 else 'jpg'}"
        noise = rng.integers(0, 256, (40 + i, 90 - i, 3), np.uint8)
        Image.fromarray(noise).save(path)
        samples.append(Sample(str(i), 0, "", path, ABSENT, file_sha256(path)))
    return samples


@pytest.mark.usefixtures("all_by_processes")
def test_texts_read_by_processes_are_the_same_bytes(tmp_path: Path, text_model: Path) -> None:
    plan = plan_rows(text_samples(40), {0: 2}, "none", "text")
    specs = resolve_text(str(text_model), "random", 16, 1), resolve_lexicon(), resolve_ngrams()
    for number, spec in enumerate(specs):
        encoder, roots = spec.load(CPU), (tmp_path / f"a{number}", tmp_path / f"b{number}")
        run(roots[0], plan, encoder, TextReader(47))
        by_processes_of(roots[1], plan, encoder, TextReader(47))
        found = row_bytes(roots[1])
        assert len(found) == 120
        assert found == row_bytes(roots[0])


@pytest.mark.usefixtures("all_by_processes")
def test_pictures_read_by_processes_are_the_same_bytes(tmp_path: Path) -> None:
    values: dict[str, Any] = {"mean": None, "std": None, "size": None, "fit": "crop", "seed": 1}
    spec = resolve_image("test_vit", "random", {}, **values)
    plan = plan_rows(picture_samples(tmp_path, 20), {0: 1}, "none", "image")
    encoder, reader = spec.load(CPU), PictureReader(47, needed_side(spec.size, spec.crop))
    run(tmp_path / "a", plan, encoder, reader)
    by_processes_of(tmp_path / "b", plan, encoder, reader)
    assert len(row_bytes(tmp_path / "b")) == 40
    assert row_bytes(tmp_path / "b") == row_bytes(tmp_path / "a")


@pytest.mark.usefixtures("all_by_processes")
def test_no_row_is_read_in_this_process(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    by_processes_of(tmp_path / "c", make_rows(tmp_path), Prepared(), Numbered(notes=notes))
    read_by = {int(path.name.split()[-1]) for path in notes.iterdir()}
    assert read_by
    assert os.getpid() not in read_by


@pytest.mark.usefixtures("all_by_processes")
def test_unreadable_rows_are_named_as_threads_name_them(tmp_path: Path) -> None:
    sealed: list[int] = []
    reader = Numbered(bad=(17, 30, 49))
    with pytest.raises(DataError, match=r"3 sample\(s\) cannot be read") as caught:
        by_processes_of(tmp_path / "c", make_rows(tmp_path), Prepared(), reader, sealed=sealed)
    assert caught.value.problems == [f"{n}.jpg: cannot be decoded" for n in (17, 30, 49)]
    assert sealed == [8, 8]


@pytest.mark.usefixtures("all_by_processes")
@pytest.mark.parametrize("times", [1, 2])
def test_rows_of_a_killed_reader_are_read_by_another(tmp_path: Path, times: int) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    reader = Numbered(killing=(20,), times=times, notes=notes)
    rows = make_rows(tmp_path)
    by_processes_of(tmp_path / "a", rows, Prepared(), reader)
    run(tmp_path / "b", rows, Prepared())
    assert row_bytes(tmp_path / "a") == row_bytes(tmp_path / "b")
    assert len(list(notes.glob("killed *"))) == times


@pytest.mark.usefixtures("all_by_processes")
def test_a_row_that_kills_three_readers_is_named(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    sealed: list[int] = []
    reader = Numbered(bad=(49,), killing=(20,), notes=notes)
    with pytest.raises(DataError, match=r"2 sample\(s\) cannot be read") as caught:
        by_processes_of(tmp_path / "c", make_rows(tmp_path), Prepared(), reader, sealed=sealed)
    assert caught.value.problems == [
        "20: 3 processes that were reading it ended, the last one killed by SIGKILL "
        "(out of memory?)",
        "49.jpg: cannot be decoded",
    ]
    assert sealed == [8, 8]
    assert len(list(notes.glob("killed *"))) == 3


@pytest.mark.usefixtures("all_by_processes")
@pytest.mark.parametrize(
    ("odd", "kind", "said"),
    [(False, ModelError, "no such token"), (True, RuntimeError, "OddError: something odd")],
)
def test_errors_of_preparing_are_raised_here(
    tmp_path: Path, odd: bool, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        by_processes_of(tmp_path / "c", make_rows(tmp_path), Prepared(Failing(odd)), Numbered())


def test_readers_that_cannot_be_sent_read_here(tmp_path: Path) -> None:
    """A function of a test can be no pickle; one of a script can, and is not found there."""
    rows = make_rows(tmp_path)
    by_processes_of(tmp_path / "a", rows, Prepared(), lambda row: read(row))
    script = sys.modules["__main__"]
    own: Any = type("Own", (), {"__call__": lambda self, row: read(row), "__module__": "__main__"})
    script.Own = own  # type: ignore[attr-defined]
    try:
        by_processes_of(tmp_path / "b", rows, Prepared(), own())
    finally:
        del script.Own  # type: ignore[attr-defined]
    run(tmp_path / "c", rows, Prepared())
    assert row_bytes(tmp_path / "a") == row_bytes(tmp_path / "b") == row_bytes(tmp_path / "c")


def no_start(*arguments: Any) -> Any:
    raise OSError("no process")


def ended_at_once(target: Callable[..., None], arguments: Any, device: str, preload: str) -> Any:
    return start_fresh(os._exit, (3,), device, preload)


@pytest.mark.parametrize("start", [no_start, ended_at_once])
def test_threads_read_where_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    monkeypatch.setattr(processes, "start_process", start)
    notes = tmp_path / "notes"
    notes.mkdir()
    by_processes_of(tmp_path / "a", make_rows(tmp_path), Prepared(), Numbered(notes=notes))
    assert [path.name for path in notes.iterdir()] == [f"read by {os.getpid()}"]
    assert len(row_bytes(tmp_path / "a")) == len(LENGTHS)


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # forked and spawned
def test_workers_of_a_crew_have_readers_too(tmp_path: Path, device: str) -> None:
    worker = start_fresh(read_by_others, (tmp_path,), device, processes.PRELOAD)
    worker.join(300)
    assert worker.exitcode == 0
    assert {path.name for path in tmp_path.iterdir()} > {f"read by {worker.pid}"}


def test_processes_read_for_a_gpu_with_many_rows_and_cores() -> None:
    gpu = torch.device("cuda")
    assert should_use_processes(gpu, 100_000, 16)
    assert not should_use_processes(gpu, 100, 16)
    assert not should_use_processes(gpu, 100_000, 2)
    assert not should_use_processes(CPU, 100_000, 16)


def test_what_processes_wait_for_begins_while_models_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def fails(preload: str) -> None:
        begun.append(preload)
        raise OSError("no process")

    monkeypatch.setattr(reading, "prepare_forks", fails)
    preload_processes(torch.device("cuda"), 100_000, 16)
    preload_processes(torch.device("cuda"), 100, 16)
    assert begun == [processes.PRELOAD]


SCRIPT = """
import faulthandler
import sys
from pathlib import Path
faulthandler.dump_traceback_later(200)  # to see what keeps it
sys.path.insert(0, {root!r})
print("ran", flush=True)
from tests.support.extraction import make_rows, run
from tests.support.row_readers import FOUR, Numbered, Prepared, Repeated
folder = Path({folder!r})
reader = Numbered(notes=folder / "notes", seconds=0.1)
encoder = Prepared(Repeated((1,) * 1000))
run(folder / "c", make_rows(folder, 1000), encoder, reader, threads=FOUR, processes=True)
"""


def ended(parent: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What a process of a session of its own printed, once all that hold its output are gone."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return parent.communicate(timeout=seconds)
    faults = [f"{p.pid} {p.status()} {command(p)}" for p in family(parent.pid)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        parent.communicate(timeout=100)  # until it says where its threads are
    for process in family(parent.pid):
        process.kill()
    pytest.fail(f"{faults} did not end: {parent.communicate(timeout=60)[1]}")


def family(session: int) -> list[psutil.Process]:
    """The processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it is gone
            if os.getsid(process.pid) == session:
                found.append(process)
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_readers_end_with_their_parent(tmp_path: Path, end: signal.Signals) -> None:
    """However it ends; and none of them runs its script."""
    notes = tmp_path / "notes"
    notes.mkdir()
    script = tmp_path / "script.py"
    root = str(Path(__file__).parents[2])
    script.write_text(SCRIPT.format(root=root, folder=str(tmp_path)), encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit = time.monotonic() + 120
    while len(found := readers_of(parent.pid)) < 4 and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(found) == 4
    if end == signal.SIGINT:
        os.killpg(parent.pid, end)  # as a terminal does: all of its processes hear it
    else:
        parent.send_signal(end)
    printed, complained = ended(parent, 120)
    assert parent.returncode != 0
    assert printed == "ran\n"
    assert "reading/process.py" not in complained
    limit = time.monotonic() + 60
    while (left := [pid for pid in found if psutil.pid_exists(pid)]) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not left
