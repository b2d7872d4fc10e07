"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming shards, streams run the
model on the batches of the present one, and the caller's thread seals the one that is ready.
Batches never cross shards and are ordered by length inside one, and on the CPU a stream computes
with one thread, so a shard's bytes depend on its rows alone: neither the number of cores nor an
interruption changes them.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence

import torch

from mmsa_cache.native.memory import reused, trim

from .halving import Halving
from .job import Job
from .shards import ShardRows, encoded_shards
from .streams import Timings, Workers

_TRIM_EVERY = 8
"""Shards. What batches and pictures of all sizes leave behind adds up; but of memory that is given
back, the part that is needed again has to be cleared again."""


def extract(
    jobs: Sequence[Job],
    device: torch.device,
    *,
    shard_rows: int,
    batch_size: int,
    workers: Workers | None = None,
) -> Timings:
    """Writes the shards that are missing, cache by cache, without a pause between them.

    Args:
        jobs: The caches, in order.
        device: Where the models run.
        shard_rows: Rows a shard.
        batch_size: Rows a forward pass.
        workers: Threads; default: what suits the device.

    Raises:
        DataError: Rows could not be read; every unreadable one of the rest is named.
        DeviceError: As `assemble` says.
    """
    workers = workers or Workers.plan(device)
    timings, sealed = Timings(), itertools.count(1)
    models = {id(job.encoder): Halving(job.encoder) for job in jobs}
    work = [
        [ShardRows(job, models[id(job.encoder)], rows) for rows in job.missing(shard_rows)]
        for job in jobs
    ]
    with (
        reused(),
        contextlib.closing(
            encoded_shards(
                list(itertools.chain(*work)), device, workers, shard_rows, batch_size, timings
            )
        ) as shards,
    ):
        for job, pieces in zip(jobs, work, strict=True):
            trim()  # the encoder before had batches of other sizes
            told = False
            with job.watch() as advance:
                for piece in pieces:
                    shard = next(shards)
                    if piece.model.halved and not told:
                        told = True
                        job.notice(
                            f"No memory for {batch_size} rows at once: half as many are run."
                        )
                    started = time.perf_counter()
                    job.writer.publish(shard)
                    timings.write += time.perf_counter() - started
                    del shard  # or it stays until the next one is ready
                    if next(sealed) % _TRIM_EVERY == 0:
                        trim()
                    advance(len(piece.rows))
                job.writer.finish()
    return timings
