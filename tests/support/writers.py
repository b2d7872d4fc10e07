"""Writers of one store."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mmsa_cache.store.schema import Shard
from tests.support.faulty import Deadly
from tests.support.shards import make_keys, writer_of

WRITERS, READERS = 4, 1
ROWS, WINDOW, STEP = 50, 8, 5
"""Windows of 8 rows that begin every 5 rows: most rows are in two."""
KEYS = make_keys(0, ROWS)


def window(first: int) -> Shard:
    """Rows whose content their numbers give, whatever window they are in."""
    numbers = np.arange(first, min(first + WINDOW, ROWS))
    lengths = numbers % 4 + 1
    tokens = [
        np.random.default_rng(number).standard_normal((length, 6)).astype(np.float16)
        for number, length in zip(numbers.tolist(), lengths.tolist(), strict=True)
    ]
    return Shard(
        KEYS[numbers],
        [f"operation {number}" for number in numbers],
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        np.concatenate(tokens),
        np.stack([block[:1] for block in tokens]),
        ("first",),
    )


FIRSTS = range(0, ROWS, STEP)


def write_all(root: Path, seed: int, kill_at: int = 0) -> None:
    """Seals every window, in an order and a way of its own; merges now and then."""
    rng = np.random.default_rng(seed)
    disk = Deadly(kill_at) if kill_at else None
    writer = writer_of(root) if disk is None else writer_of(root, disk=disk)
    with writer.claim(lambda: None, (seed % WRITERS, WRITERS)):
        for number, first in enumerate(rng.permutation(np.array(FIRSTS)).tolist()):
            shard = window(first)
            if not writer.has(shard.keys).all():
                if seed % 2:
                    writer.publish(shard)
                else:  # as by a worker and its driver
                    writer.adopt([writer.sealer.seal([shard])])
            if number % 7 == 6:
                writer.finish()
        writer.finish()


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
