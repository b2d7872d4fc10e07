"""The last step: stage one with compiled models, which may take what is left of the time."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any

from torch import Tensor

from extract.bench import run_end_to_end
from extract.encoders.compiled import compile_blocks
from extract.reading.reading import ReadingPool, preload_processes
from extract.streams import ThreadCounts
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.timing import time_call

from .bench import Bench
from .probes import Busy
from .stage_one import models_alone, read_by

END_TO_END = 0.9
"""Share of the compiled models' own rate that extraction should reach."""


def run(bench: Bench) -> None:
    """Compiles both models as ``[extract] compile`` does, then measures them and extraction."""
    figures, device, size = bench.figures, bench.device, bench.sizes.large_batch
    rows = {name: bench.rows(name) for name in MODALITIES}
    readers = bench.readers()
    few, cores = slice(-2 * size, None), ThreadCounts.plan(device).readers  # without large pictures
    preload_processes(device, bench.sizes.posts, cores)
    encoders: dict[str, Any] = {}
    inputs: dict[str, list[Tensor]] = {}
    for name, spec in bench.specs(bench.compute).items():
        encoders[name] = encoder = spec.load(device)
        with contextlib.closing(ReadingPool(cores, processes=False)) as reading:
            inputs[name] = read_by(reading, rows[name][few], readers[name], encoder)
        if (of := compile_blocks(encoder, size, device, bench.sizes.compiler)) is None:
            continue
        batch = inputs[name][:size]
        first = time_call(partial(encoder.encode, batch), device)
        figures.add(f"{name}: compiling {of.count} blocks, with a first batch", first, "s")
        figures.check(f"  compiled {name}", of.works, "works")
    alone = models_alone(bench, encoders, inputs, size)
    figures.add(f"models alone, compiled, {bench.compute}", alone, "posts/s")
    for turn in ("first turn", "last turn"):
        started = time.perf_counter()
        with Busy(device) as busy:
            whole = run_end_to_end(
                rows, readers, encoders, device, shard_rows=size, batch_size=size
            )
        rate = bench.sizes.posts / whole.seconds
        figures.add(f"extraction end to end, compiled, {turn}", rate, "posts/s")
        figures.add("  with its preparation", time.perf_counter() - started, "s")
        with figures.attempt("device busy"):
            figures.add("  device busy", busy.share)
    figures.add("extraction against the compiled models", rate / alone, at_least=END_TO_END)
