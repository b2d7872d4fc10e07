"""The last step: stage one with compiled models, which takes long."""

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
from .probes import measure_utilization
from .stage_one import measure_models, read_inputs

END_TO_END = 0.9
"""Target of the extraction's rate, as a share of the compiled models' own."""


def run(bench: Bench) -> None:
    """Compiles both models as ``[extract] compile`` does, and measures them and the extraction."""
    log, device, size = bench.log, bench.device, bench.sizes.large_batch
    rows = {name: bench.rows(name) for name in MODALITIES}
    readers = bench.readers()
    small = slice(-2 * size, None)  # the large pictures come first
    cores = ThreadCounts.plan(device).readers
    preload_processes(device, bench.sizes.posts, cores)
    encoders: dict[str, Any] = {}
    inputs: dict[str, list[Tensor]] = {}
    for name, spec in bench.specs(bench.compute).items():
        encoders[name] = encoder = spec.load(device)
        with contextlib.closing(ReadingPool(cores, processes=False)) as reading:
            inputs[name] = read_inputs(reading, rows[name][small], readers[name], encoder)
        if (blocks := compile_blocks(encoder, size, device, bench.sizes.compiler)) is None:
            continue
        batch = inputs[name][:size]
        first = time_call(partial(encoder.encode, batch), device)
        log.add(f"{name}: compiling {blocks.count} blocks, with a first batch", first, "s")
        log.check(f"  compiled {name}", blocks.works, "works")
    alone = measure_models(bench, encoders, inputs, size)
    log.add(f"models alone, compiled, {bench.compute}", alone, "posts/s")
    for turn in ("first turn", "last turn"):
        started = time.perf_counter()
        with measure_utilization(device) as utilization:
            extraction = run_end_to_end(
                rows, readers, encoders, device, shard_rows=size, batch_size=size
            )
        rate = bench.sizes.posts / extraction.seconds
        log.add(f"extraction end to end, compiled, {turn}", rate, "posts/s")
        log.add("  with its preparation", time.perf_counter() - started, "s")
        with log.attempt("device busy"):
            log.add("  device busy", utilization.mean)
    log.add("extraction against the compiled models", rate / alone, at_least=END_TO_END)
