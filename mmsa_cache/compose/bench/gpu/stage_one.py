"""Step 2: the rate of extraction, and its bottlenecks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from extract.bench import run_end_to_end, run_textbook
from extract.encoders.compute import precision
from extract.plan import Reader, Row, RowPlan, plan_batches
from extract.reading.reading import ReadingPool, preload_processes
from extract.streams import ThreadCounts
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.device import is_out_of_memory
from mmsa_cache.native.memory import reuse_blocks
from mmsa_cache.native.timing import time_call

from ..extract import spread_samples
from .bench import Bench
from .probes import count_calls, measure_utilization, synchronisations

TEXTBOOK = 8.0
"""Target of the rate, relative to a textbook loop."""
_SHARD_ROWS = 256
_FEWEST_READ = 32
"""Pictures read in a measurement, at least."""
_WARM_UP = 1024
"""Pictures read before the measurement."""


def run(bench: Bench) -> None:
    """Measures in the device's default precision."""
    log, device, size = bench.log, bench.device, bench.sizes.large_batch
    cores = ThreadCounts.plan(device).readers
    preload_processes(device, bench.sizes.posts, cores)  # while models load, as an extraction does
    rows = {name: bench.rows(name) for name in MODALITIES}
    readers = bench.readers()
    encoders = {}
    for name, spec in bench.specs(bench.compute).items():
        started = time.perf_counter()
        encoders[name] = spec.load(device)
        log.add(f"loading the {name} encoder", time.perf_counter() - started, "s")
    rate = _measure_extraction(bench, rows, readers, encoders)
    with log.attempt("reading pictures"):
        _measure_reading(bench, rows["image"], readers["image"], encoders["image"])
    inputs: dict[str, list[Tensor]] = {}
    with log.attempt("models on batches that lie on the device"):
        small = slice(-2 * size, None)  # the large pictures come first
        with contextlib.closing(ReadingPool(cores, processes=False)) as reading:
            inputs = {
                n: read_inputs(reading, rows[n][small], readers[n], e) for n, e in encoders.items()
            }
        for count in (bench.sizes.batch_size, size):
            alone = measure_models(bench, encoders, inputs, count)
            log.add(f"models alone, eager, {bench.compute}, batches of {count}", alone, "posts/s")
            log.add(f"extraction against them (batches of {count})", rate / alone)
    with log.attempt("textbook loop"):
        slow = _measure_textbook(bench)
        log.add("textbook loop, float32, batches of 32", slow, "posts/s")
        log.add("extraction against the textbook loop", rate / slow, at_least=TEXTBOOK)
    for name, values in inputs.items():
        with log.attempt(f"launches a batch of {name}"):
            work = partial(encoders[name].encode, values[: bench.sizes.batch_size])
            log.add(f"launches a batch of {name}", count_calls(work, device).launches)
            log.add("  operations of it that wait", synchronisations(work, device))
    with log.attempt("largest batch"):
        _find_largest_batch(bench, encoders["image"], inputs["image"])


def _measure_extraction(
    bench: Bench,
    rows: Mapping[str, RowPlan],
    readers: Mapping[str, Reader],
    encoders: dict[str, Any],
) -> float:
    """Extracts from files to sealed shards; returns posts per second of the last turn."""
    log, rate = bench.log, 0.0
    for what, names in (
        ("first turn", MODALITIES),  # it warms up
        ("texts alone", MODALITIES[:1]),
        ("pictures alone", MODALITIES[1:]),
        ("last turn", MODALITIES),
    ):
        with measure_utilization(bench.device) as utilization:
            extraction = run_end_to_end(
                rows,
                readers,
                {name: encoders[name] for name in names},
                bench.device,
                shard_rows=_SHARD_ROWS,
                batch_size=bench.sizes.large_batch,
            )
        rate, timings = bench.sizes.posts / extraction.seconds, extraction.timings
        log.add(f"extraction end to end, {what}", rate, "posts/s")
        for name in ("read", "encode", "write"):
            log.add(f"  {name}, threads' seconds in all", getattr(timings, name), "s")
        log.add("  nothing to encode while rows were read", timings.starved, "s")
        with log.attempt(f"device busy, {what}"):
            log.add(f"device busy while extracting, {what}", utilization.mean)
            log.add("  over time", utilization.over_time())
    return rate


def read_inputs(
    reading: ReadingPool, rows: Sequence[Row], reader: Reader, encoder: Any
) -> list[Tensor]:
    """The encoder inputs of rows."""
    tasks = reading.submit(rows, reader, encoder)
    return [value for task in tasks for value in task.result().inputs]


def _measure_reading(bench: Bench, rows: RowPlan, reader: Reader, encoder: Any) -> None:
    """Pictures read, decoded and prepared per second, by threads and by processes."""
    large, cores = bench.sizes.large_posts, ThreadCounts.plan(bench.device).readers
    width, height = bench.sizes.large_picture
    kinds = {
        "pictures": rows[large:],
        f"pictures of {width * height / 1e6:.1f} megapixels": rows[:large],
    }
    ways = [(threads, False) for threads in sorted({1, 4, cores})]
    with reuse_blocks():  # as an extraction does
        for threads, processes in [*ways, (cores, True)]:
            with contextlib.closing(ReadingPool(threads, processes=processes)) as reading:
                read_inputs(reading, rows[-_WARM_UP:], reader, encoder)  # processes start meanwhile
                for what, plan in kinds.items():
                    part = plan[: max(_FEWEST_READ, len(plan) * threads // cores)]
                    started = time.perf_counter()
                    read_inputs(reading, part, reader, encoder)
                    rate = len(part) / (time.perf_counter() - started)
                    how = f"{threads} cores' processes" if processes else f"{threads} thread(s)"
                    bench.log.add(f"{what} read by {how}", rate, "pictures/s")


def measure_models(
    bench: Bench, encoders: dict[str, Any], inputs: dict[str, list[Tensor]], size: int
) -> float:
    """Posts per second of both models' forward passes, on batches in device memory."""
    device = bench.device
    text, image = encoders["text"], encoders["image"]
    batches = plan_batches(inputs["text"], size)
    texts = [_pad(text, [inputs["text"][row] for row in rows], device) for rows in batches]
    stacks = torch.stack(inputs["image"]).split(size)
    pictures = [(batch.to(device) / 255 - image.mean) / image.std for batch in stacks]

    def work() -> None:
        with torch.inference_mode(), precision(device, bench.compute):
            for ids, mask in texts:
                text.tower(ids, mask, "last")
            for batch in pictures:
                image.tower(batch, "last")

    work()
    seconds = min(time_call(work, device) for _ in range(bench.sizes.rounds))
    return len(inputs["image"]) / seconds


def _pad(text: Any, rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of a batch on the device, (batch, tokens) each."""
    pad = text.tokenizer.pad_token_id or 0
    ids = pad_sequence([row.long() for row in rows], batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows])
    return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)


def _measure_textbook(bench: Bench) -> float:
    """Posts per second of the textbook loop of `extract.bench`, in float32."""
    samples = spread_samples(bench.samples()[bench.sizes.large_posts :], bench.sizes.textbook_posts)
    text, image = (s.load(bench.device) for s in bench.specs("float32").values())
    run_textbook(samples[:32], text, image, bench.device)
    seconds = time_call(lambda: run_textbook(samples, text, image, bench.device), bench.device)
    return len(samples) / seconds


def _find_largest_batch(bench: Bench, encoder: Any, inputs: Sequence[Tensor]) -> None:
    """Doubles the batch until the device runs out of memory."""
    size, largest = bench.sizes.batch_size, 0
    while size <= bench.sizes.largest_batch:
        batch = [inputs[i % len(inputs)] for i in range(size)]
        try:
            encoder.encode(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        largest, size = size, size * 2
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    prefix = "at least " if size > bench.sizes.largest_batch else ""
    bench.log.add("largest batch of pictures before out-of-memory", f"{prefix}{largest}", "rows")
