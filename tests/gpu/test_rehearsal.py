"""``mmsa bench gpu --rehearse``: every step of the GPU run, on the CPU with tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa_cache.compose.bench.gpu import stores
from mmsa_cache.compose.bench.gpu.bench import Bench
from mmsa_cache.compose.bench.gpu.plan import PREPARATION, STEPS, Step
from mmsa_cache.compose.bench.gpu.posts import make_posts
from mmsa_cache.compose.bench.gpu.results import BenchRecord, Measurement, StepResult, format_record
from mmsa_cache.compose.bench.gpu.runner import run
from mmsa_cache.compose.bench.gpu.sizes import FULL, REHEARSAL
from mmsa_cache.compose.bench.gpu.verb import bench_gpu
from mmsa_cache.errors import DataError, SettingsError

MEASURED = (
    "text features, float16 here against float32 on the CPU: largest |Δ|",
    "late, tokens: |Δp| between the devices",
    "extraction end to end, last turn",
    "device busy while extracting, last turn",
    "pictures read by 1 thread(s)",
    "models alone, compiled, float32",
    "extraction against the compiled models",
    "extraction against the textbook loop",
    "launches a batch of image",
    "largest batch of pictures before out-of-memory",
    "store to bank against the plain copy",
    "pooled epoch against the textbook",
    "five folds against one",
    "token-level epoch of attention_concat, 1 member(s)",
    "pooled: trials finished, 2 folds, real pooled features",
    "pooled: 200 trials, extrapolated",
    "default: trials finished, 2 folds, generated features",
    "default: device busy",
    "stack of 3, concat, pooled: peak beside the features",
    "out of memory while training",
    "a batch of image: most of the host's time",
)
"""Some figures of every step."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``--pack`` writes of a small store."""
    folder = tmp_path_factory.mktemp("features")
    bank = stores.generate(folder / "store", REHEARSAL).bank()
    stores.pack(bank, np.arange(len(bank)) // 2, folder / "packed")
    return folder / "packed"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, "-m", "mmsa_cache", "bench", "gpu", "--rehearse"]
    done = subprocess.run(
        [*command, "--features", str(packed), "--json", "out.json"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown == json.loads((folder / "out.json").read_text())
    assert "stage two: done" in done.stderr
    return shown


@pytest.mark.faults
def test_every_step_runs_without_an_error(rehearsed: dict[str, Any]) -> None:
    assert [(step["name"], step["status"]) for step in rehearsed["steps"]] == [
        (name, "done") for name in STEPS
    ]
    figures = [figure for step in rehearsed["steps"] for figure in step["figures"]]
    assert [figure["what"] for figure in figures if figure["error"]] == []
    assert set(MEASURED) - {figure["what"] for figure in figures} == set()
    assert rehearsed["rehearsal"] is True
    assert rehearsed["machine"]["device"] == "cpu"


@pytest.mark.faults
def test_the_cpu_agrees_with_itself(rehearsed: dict[str, Any]) -> None:
    (correctness,) = (s for s in rehearsed["steps"] if s["name"] == "correctness")
    missed = [figure for figure in correctness["figures"] if figure["holds"] is False]
    assert missed == []
    between = [f["measured"] for f in correctness["figures"] if "between the devices" in f["what"]]
    assert len(between) == 2 * 10 + 8 + 1  # fusions at both levels, losses, one split
    assert between == [0.0] * len(between)


def test_the_whole_run_has_time_within_eight_minutes() -> None:
    tests = 45  # seconds of pytest -m gpu
    assert sum(step.seconds for step in STEPS.values()) <= 6 * 60
    assert PREPARATION + sum(step.seconds for step in STEPS.values()) + tests <= 8 * 60


def _good(bench: Bench) -> None:
    bench.log.add("counted", 3, "rows", at_least=2)


def _fails(bench: Bench) -> None:
    bench.log.add("before", 1.0, at_most=0.5)
    raise ValueError("what went wrong")


def _hangs(bench: Bench) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    bench.log.add("child", child.pid)
    time.sleep(600)


@pytest.mark.faults
def test_a_failure_or_a_hang_costs_one_step(tmp_path: Path) -> None:
    steps = {"fails": Step(_fails, 60), "hangs": Step(_hangs, 2), "good": Step(_good, 60)}
    out = tmp_path / "out.json"
    written: list[int] = []

    def look(step: StepResult) -> None:
        written.append(len(BenchRecord.model_validate_json(out.read_bytes()).steps))

    record = run(out, rehearsal=True, steps=steps, on_step=look)
    assert written == [1, 2, 3]  # each step's result lies on disk as it ends
    assert [step.status for step in record.steps] == ["failed", "timed out", "done"]
    assert record.unfinished == ["fails", "hangs"]
    fails, hangs, good = record.steps
    assert fails.figures == [Measurement(what="before", measured=1.0, wanted="≤ 0.5", holds=False)]
    assert fails.error.splitlines()[-1] == "ValueError: what went wrong"
    assert good.figures == [
        Measurement(what="counted", measured=3, unit="rows", wanted="≥ 2", holds=True)
    ]
    (child,) = hangs.figures
    assert not Path(f"/proc/{child.measured}").exists() or _is_zombie(int(str(child.measured)))
    table = format_record(record)
    assert "before (MISSED)" in table
    assert "ValueError: what went wrong" in table


def _is_zombie(pid: int) -> bool:
    """Ended, and not yet fetched by the process that adopted it."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_generated_posts_are_as_large_as_real_ones(tmp_path: Path) -> None:
    make_posts(tmp_path / "posts", FULL, posts=20, test_posts=4, large_posts=1)
    sizes = sorted(p.stat().st_size for p in (tmp_path / "posts/pairs").glob("*.jpg"))
    assert all(30_000 < size < 55_000 for size in sizes[:-1])
    assert sizes[-1] > 1_000_000  # 12 megapixels
    assert len((tmp_path / "posts/train.txt").read_text().splitlines()) == 1 + 16


def test_packed_features_come_back(tmp_path: Path, packed: Path) -> None:
    bank = stores.generate(tmp_path / "store", REHEARSAL).bank()
    store = stores.unpack(packed, tmp_path / "unpacked")
    found = store.bank()
    items, own = (b.items(np.arange(len(b)), variants=True) for b in (bank, found))
    assert len(items) == len(own) > len(bank)
    assert items[:, 0].tolist() == own[:, 0].tolist()
    for one, other, column in ((bank.text, found.text, 1), (bank.image, found.image, 2)):
        assert one.vectors(items[:, column], "mean").equal(other.vectors(own[:, column], "mean"))
    assert found.labels.equal(bank.labels)
    assert store.groups.tolist() == (np.arange(len(bank)) // 2).tolist()


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_is_no_packed_folder_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pooled.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"pooled\.npz cannot be read.*\n.*--pack FOLDER"):
        stores.unpack(tmp_path, tmp_path / "store")


def test_a_step_can_be_run_alone(tmp_path: Path) -> None:
    record = bench_gpu(tmp_path / "out.json", rehearse=True, features=None, steps="profile")
    assert [(step.name, step.status) for step in record.steps] == [("profile", "done")]


def test_a_step_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no step 'serch'.*\n.*stage one, stage two, search"):
        bench_gpu(tmp_path / "out.json", rehearse=True, features=None, steps="profile, serch")
    assert not any(tmp_path.iterdir())
