"""What an engine costs against plain extraction on the same machine, and what more workers give.

Machines are shared and noisy, so three ways take turns in one run, and the figures are medians over
rounds: plain extraction in this process on all cores, one worker on one core, and such a worker a
core. What comes once, whatever there is to do, is told apart: processes, libraries, encoders.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from extract.encoders.image import ImageEncoder
from extract.encoders.text import TextEncoder
from mmsa_cache.errors import DeviceError
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.json_value import JsonObject
from mmsa_cache.native.cores import core_share, usable_cores
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.writer import FeatureWriter

from .bench import run_end_to_end
from .crew.driver import drive
from .crew.pieces import Piece
from .crew.protocol import Crew, Sealed, Sealer
from .plan import FeatureJob, Reader, RowPlan

Start = Callable[[Sequence[Sealer], int], Crew]
"""Starts so many workers, with the place of each job's shards."""


def bench_crew(
    rows: Mapping[str, RowPlan],
    readers: Mapping[str, Reader],
    encoders: Mapping[str, TextEncoder | ImageEncoder],
    start: Start,
    *,
    batch_size: int,
    shard_rows: int,
    rounds: int,
) -> JsonObject:
    """Measures the three ways on the same rows, on the CPU.

    Args:
        rows: By modality, as the next two.
        readers: Of this process.
        encoders: Of this process.
        start: Starts the crew; workers find the same encoders, jobs are in the order of `rows`.
        batch_size: Rows a forward pass.
        shard_rows: Rows a window.
        rounds: Turns that each way takes.

    Returns:
        Rates in rows a second, of the three ways; the engine's overhead, 1 − its rate / the plain
        one, and the gain, its rate / that of one worker (medians over rounds, and every round's);
        seconds to start the workers; the driver's seconds in the store.

    Raises:
        DeviceError: Workers do not work.
    """
    count, cpu = sum(map(len, rows.values())), torch.device("cpu")
    plain: list[float] = []
    one: list[_Turn] = []
    every: list[_Turn] = []
    for _ in range(rounds):
        whole = run_end_to_end(
            rows, readers, encoders, cpu, shard_rows=shard_rows, batch_size=batch_size
        )
        plain.append(count / whole.seconds)
        for workers, turns in ((1, one), (usable_cores(), every)):
            turns.append(_run(rows, start, workers, shard_rows, batch_size))
    overheads = [1 - turn.rate / rate for turn, rate in zip(every, plain, strict=True)]
    gains = [turn.rate / alone.rate for turn, alone in zip(every, one, strict=True)]
    return {
        "plain_rows_per_s": statistics.median(plain),
        "engine_rows_per_s": statistics.median(turn.rate for turn in every),
        "one_worker_rows_per_s": statistics.median(turn.rate for turn in one),
        "overhead": statistics.median(overheads),
        "overhead_rounds": overheads,
        "gain": statistics.median(gains),
        "gain_rounds": gains,
        "start_seconds": statistics.median(turn.start for turn in every),
        "store_seconds": statistics.median(turn.store for turn in every),
        "workers": usable_cores(),
        "rows": count,
        "rounds": rounds,
        "batch_size": batch_size,
    }


@dataclass(frozen=True, slots=True)
class _Turn:
    rate: float
    """Rows a second, once the workers are there; their end is counted."""
    start: float
    """Seconds until every worker has done a batch of each job."""
    store: float
    """Seconds of the driver in the store."""


def _run(
    rows: Mapping[str, RowPlan], start: Start, workers: int, shard_rows: int, batch_size: int
) -> _Turn:
    with temporary_folder() as folder, contextlib.ExitStack() as claims:
        jobs = []
        for name, plan in rows.items():
            identity = EncoderIdentity.of_fields({"modality": name, "encoder": "measured"})
            writer = FeatureWriter(folder, StoredEncoder.of(identity))
            claims.enter_context(writer.claim(lambda: None))
            jobs.append(FeatureJob(plan, writer, name=name))
        began = time.perf_counter()
        crew = start([job.writer.sealer for job in jobs], workers)
        try:
            _warm_up(crew, [job.rows[:batch_size] for job in jobs], workers)
        except BaseException:
            crew.close()
            raise
        there = time.perf_counter()
        tally = drive(jobs, crew, shard_rows=shard_rows)
        seconds = time.perf_counter() - there
    return _Turn(sum(map(len, rows.values())) / seconds, there - began, tally.store_seconds)


def _warm_up(crew: Crew, batches: Sequence[Any], workers: int) -> None:
    """Has every worker do a batch of each job, which the index never names; on a core each."""
    while crew.workers < workers:
        crew.wait(1.0)
    pids: set[int] = set()
    for job, batch in enumerate(batches):
        for number in range(workers):  # the next one goes to whoever has fewest
            crew.submit(Piece(-1 - job * workers - number, job, tuple(batch), (len(batch),)))
        left = workers
        while left:
            for said in crew.wait(1.0):
                if not isinstance(said, Sealed):
                    raise DeviceError(f"A worker cannot work: {said.reason}")
                pids.add(int(said.worker.rpartition(":")[2]))
                left -= 1
    for number, pid in enumerate(sorted(pids)):
        _pin(pid, number)


def _pin(pid: int, number: int) -> None:
    """Keeps a worker on one core of this machine, all its threads."""
    cpus = core_share(number, usable_cores()).cpus
    with contextlib.suppress(psutil.Error, OSError):
        for thread in psutil.Process(pid).threads() if cpus else ():
            os.sched_setaffinity(thread.id, cpus)
