"""Step 2: how fast pictures and texts become sealed shards, and what holds them up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from extract.bench import run_end_to_end, run_textbook
from extract.encoders.compute import precision
from extract.plan import Reader, Row, RowPlan, plan_batches
from extract.reading.reading import ReadingPool, preload_processes
from extract.streams import ThreadCounts
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.device import is_out_of_memory
from mmsa_cache.native.memory import reuse_blocks
from mmsa_cache.native.timing import time_call

from .bench import Bench, evenly
from .probes import Busy, count_calls, synchronisations

TEXTBOOK = 8.0
"""How many times a textbook loop's rate it should reach."""
_SHARD_ROWS = 256
_SHARE = 32
"""Pictures that a way of reading is given at least."""
_STARTED = 1024
"""Pictures that are read before the clock starts."""


def run(bench: Bench) -> None:
    """Measures everything on the device's own precision."""
    figures, device, size = bench.figures, bench.device, bench.sizes.large_batch
    cores = ThreadCounts.plan(device).readers
    preload_processes(device, bench.sizes.posts, cores)  # while models load, as an extraction does
    rows = {name: bench.rows(name) for name in MODALITIES}
    readers = bench.readers()
    encoders = {}
    for name, spec in bench.specs(bench.compute).items():
        started = time.perf_counter()
        encoders[name] = spec.load(device)
        figures.add(f"loading the {name} encoder", time.perf_counter() - started, "s")
    rate = _end_to_end(bench, rows, readers, encoders)
    with figures.attempt("reading pictures"):
        _reading(bench, rows["image"], readers["image"], encoders["image"])
    inputs: dict[str, list[Tensor]] = {}
    with figures.attempt("models on batches that lie on the device"):
        few = slice(-2 * size, None)  # the large pictures come first
        with contextlib.closing(ReadingPool(cores, processes=False)) as reading:
            inputs = {n: read_by(reading, rows[n][few], readers[n], e) for n, e in encoders.items()}
        for count in (bench.sizes.batch_size, size):
            alone = models_alone(bench, encoders, inputs, count)
            figures.add(
                f"models alone, eager, {bench.compute}, batches of {count}", alone, "posts/s"
            )
            figures.add(f"extraction against them (batches of {count})", rate / alone)
    with figures.attempt("textbook loop"):
        slow = _textbook(bench)
        figures.add("textbook loop, float32, batches of 32", slow, "posts/s")
        figures.add("extraction against the textbook loop", rate / slow, at_least=TEXTBOOK)
    for name, values in inputs.items():
        with figures.attempt(f"launches a batch of {name}"):
            work = partial(encoders[name].encode, values[: bench.sizes.batch_size])
            figures.add(f"launches a batch of {name}", count_calls(work, device).launches)
            figures.add("  operations of it that wait", synchronisations(work, device))
    with figures.attempt("largest batch"):
        _largest_batch(bench, encoders["image"], inputs["image"])


def _end_to_end(
    bench: Bench,
    rows: Mapping[str, RowPlan],
    readers: Mapping[str, Reader],
    encoders: dict[str, Any],
) -> float:
    """Files to sealed shards; posts a second of the last turn (the first one warms up)."""
    figures = bench.figures

    def turn(names: Sequence[str]) -> tuple[float, Any, Busy]:
        with Busy(bench.device) as busy:
            whole = run_end_to_end(
                rows,
                readers,
                {name: encoders[name] for name in names},
                bench.device,
                shard_rows=_SHARD_ROWS,
                batch_size=bench.sizes.large_batch,
            )
        return bench.sizes.posts / whole.seconds, whole.timings, busy

    for what, names in (
        ("first turn", MODALITIES),
        ("texts alone", MODALITIES[:1]),
        ("pictures alone", MODALITIES[1:]),
        ("last turn", MODALITIES),
    ):
        rate, timings, busy = turn(names)
        figures.add(f"extraction end to end, {what}", rate, "posts/s")
        for name in ("read", "encode", "write"):
            figures.add(f"  {name}, threads' seconds in all", getattr(timings, name), "s")
        figures.add("  nothing to encode while rows were read", timings.starved, "s")
        with figures.attempt(f"device busy, {what}"):
            figures.add(f"device busy while extracting, {what}", busy.share)
            figures.add("  over time", busy.over_time())
    return rate


def read_by(
    reading: ReadingPool, rows: Sequence[Row], reader: Reader, encoder: Any
) -> list[Tensor]:
    """Inputs of rows."""
    tasks = reading.submit(rows, reader, encoder)
    return [value for task in tasks for value in task.result().inputs]


def _reading(bench: Bench, rows: RowPlan, reader: Reader, encoder: Any) -> None:
    """Pictures read, decoded and prepared a second, by one thread up to all, and by processes."""
    large, most = bench.sizes.large_posts, ThreadCounts.plan(bench.device).readers
    width, height = bench.sizes.large_picture
    kinds = {
        "pictures": rows[large:],
        f"pictures of {width * height / 1e6:.1f} megapixels": rows[:large],
    }
    ways = [(threads, False) for threads in sorted({1, 4, most})]
    with reuse_blocks():  # as an extraction does
        for threads, processes in [*ways, (most, True)]:
            with contextlib.closing(ReadingPool(threads, processes=processes)) as reading:
                read_by(reading, rows[-_STARTED:], reader, encoder)  # processes start meanwhile
                for what, part in kinds.items():
                    share = part[: max(_SHARE, len(part) * threads // most)]
                    started = time.perf_counter()
                    read_by(reading, share, reader, encoder)
                    rate = len(share) / (time.perf_counter() - started)
                    how = f"{threads} cores' processes" if processes else f"{threads} thread(s)"
                    bench.figures.add(f"{what} read by {how}", rate, "pictures/s")


def models_alone(
    bench: Bench, encoders: dict[str, Any], inputs: dict[str, list[Tensor]], size: int
) -> float:
    """Forward passes of both models over batches on the device; posts a second."""
    device = bench.device
    text, image = encoders["text"], encoders["image"]
    places = plan_batches(inputs["text"], size)
    texts = [_padded(text, [inputs["text"][i] for i in at], device) for at in places]
    pictures = _pictures(bench, image, inputs["image"], size)

    def work() -> None:
        with torch.inference_mode(), precision(device, bench.compute):
            for ids, mask in texts:
                text.tower(ids, mask, "last")
            for pixels in pictures:
                image.tower(pixels, "last")

    work()
    seconds = min(time_call(work, device) for _ in range(bench.sizes.rounds))
    return len(inputs["image"]) / seconds


def _pictures(bench: Bench, image: Any, inputs: Sequence[Tensor], size: int) -> list[Tensor]:
    """Batches of normalised pixels on the device, (size, 3, side, side) each."""
    return [
        (torch.stack(list(inputs[i : i + size])).to(bench.device) / 255 - image.mean) / image.std
        for i in range(0, len(inputs), size)
    ]


def _padded(text: Any, rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of a batch on the device, (batch, tokens) each."""
    longest = max(map(len, rows))
    pad = text.tokenizer.pad_token_id or 0
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = True
    return ids.to(device), mask.to(device)


def _textbook(bench: Bench) -> float:
    """Posts a second of `extract.bench`'s textbook loop, in float32."""
    samples = evenly(bench.samples()[bench.sizes.large_posts :], bench.sizes.textbook_posts)
    text, image = (s.load(bench.device) for s in bench.specs("float32").values())
    run_textbook(samples[:32], text, image, bench.device)
    seconds = time_call(lambda: run_textbook(samples, text, image, bench.device), bench.device)
    return len(samples) / seconds


def _largest_batch(bench: Bench, encoder: Any, inputs: Sequence[Tensor]) -> None:
    """Doubles the batch until the device has no memory for it."""
    size = bench.sizes.batch_size
    found = 0
    while size <= bench.sizes.largest_batch:
        batch = [inputs[i % len(inputs)] for i in range(size)]
        try:
            encoder.encode(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        found, size = size, size * 2
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    reached = "at least " if size > bench.sizes.largest_batch else ""
    bench.figures.add("largest batch of pictures before out-of-memory", f"{reached}{found}", "rows")
