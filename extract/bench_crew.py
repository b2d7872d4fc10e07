"""Speed of an engine, against plain extraction on the same machine and against one worker.

Machines are shared and noisy, so three ways take turns and figures are medians over rounds: plain
extraction in this process on all cores, one worker on one core, and one worker a core. The start of
processes, libraries and encoders is not in the rates.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch

from extract.encoders.image import ImageEncoder
from extract.encoders.text import TextEncoder
from mmsa_cache.errors import DeviceError
from mmsa_cache.json_value import JsonObject
from mmsa_cache.native.cores import core_share, usable_cores

from .bench import run_end_to_end, temporary_writers
from .crew.driver import drive
from .crew.pieces import Piece
from .crew.protocol import Crew, Sealed, Sealer
from .plan import FeatureJob, Reader, Row, RowPlan

Start = Callable[[Sequence[Sealer], int], Crew]
"""Starts a number of workers; takes the sealer of each job."""


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
        rows: By modality.
        readers: By modality, for this process.
        encoders: By modality, for this process.
        start: Starts the crew, whose workers load the same encoders; jobs are in order of `rows`.
        batch_size: Rows a forward pass.
        shard_rows: Rows a window.
        rounds: Turns of each way.

    Returns:
        Rates in rows a second of the three ways; the overhead of the engine, 1 − its rate / the
        plain one, and its gain, its rate / that of one worker (medians over rounds, and every
        round's); seconds to start the workers; the driver's seconds in the store.

    Raises:
        DeviceError: Workers do not work.
    """
    count, cpu = sum(map(len, rows.values())), torch.device("cpu")
    plain: list[float] = []
    single: list[_Turn] = []
    engine: list[_Turn] = []
    for _ in range(rounds):
        extraction = run_end_to_end(
            rows, readers, encoders, cpu, shard_rows=shard_rows, batch_size=batch_size
        )
        plain.append(count / extraction.seconds)
        for workers, turns in ((1, single), (usable_cores(), engine)):
            turns.append(_run(rows, start, workers, shard_rows, batch_size))
    overheads = [1 - turn.rate / rate for turn, rate in zip(engine, plain, strict=True)]
    gains = [turn.rate / alone.rate for turn, alone in zip(engine, single, strict=True)]
    return {
        "plain_rows_per_s": statistics.median(plain),
        "engine_rows_per_s": statistics.median(turn.rate for turn in engine),
        "one_worker_rows_per_s": statistics.median(turn.rate for turn in single),
        "overhead": statistics.median(overheads),
        "overhead_rounds": overheads,
        "gain": statistics.median(gains),
        "gain_rounds": gains,
        "start_seconds": statistics.median(turn.start for turn in engine),
        "store_seconds": statistics.median(turn.store for turn in engine),
        "workers": usable_cores(),
        "rows": count,
        "rounds": rounds,
        "batch_size": batch_size,
    }


@dataclass(frozen=True, slots=True)
class _Turn:
    rate: float
    """Rows a second, without the start of workers but with their end."""
    start: float
    """Seconds until every worker has encoded a batch of each job."""
    store: float
    """Seconds of the driver in the store."""


def _run(
    rows: Mapping[str, RowPlan], start: Start, workers: int, shard_rows: int, batch_size: int
) -> _Turn:
    with temporary_writers(rows) as writers:
        jobs = [FeatureJob(plan, writers[name], name=name) for name, plan in rows.items()]
        started = time.perf_counter()
        crew = start([job.writer.sealer for job in jobs], workers)
        try:
            _warm_up(crew, [job.rows[:batch_size] for job in jobs], workers)
        except BaseException:
            crew.close()
            raise
        ready = time.perf_counter()
        tally = drive(jobs, crew, shard_rows=shard_rows)
        seconds = time.perf_counter() - ready
    return _Turn(sum(map(len, rows.values())) / seconds, ready - started, tally.store_seconds)


def _warm_up(crew: Crew, batches: Sequence[Sequence[Row]], workers: int) -> None:
    """Has every worker encode a batch of each job, which is never entered; pins each to a core."""
    while crew.workers < workers:
        crew.wait(1.0)
    pids: set[int] = set()
    for job, batch in enumerate(batches):
        for worker in range(workers):  # a piece goes to the worker that has fewest
            crew.submit(Piece(-1 - job * workers - worker, job, tuple(batch), (len(batch),)))
        pending = workers
        while pending:
            for reply in crew.wait(1.0):
                if not isinstance(reply, Sealed):
                    raise DeviceError(f"A worker cannot work: {reply.reason}")
                pids.add(int(reply.worker.rpartition(":")[2]))
                pending -= 1
    for number, pid in enumerate(sorted(pids)):
        _pin(pid, number)


def _pin(pid: int, number: int) -> None:
    """Keeps all threads of a worker on one core of this machine."""
    cpus = core_share(number, usable_cores()).cpus
    with contextlib.suppress(psutil.Error, OSError):
        for thread in psutil.Process(pid).threads() if cpus else ():
            os.sched_setaffinity(thread.id, cpus)
