"""Step 2: how fast pictures and texts become sealed shards, and what holds them up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from extract.bench import run_end_to_end, run_textbook
from extract.encoders.compute import precision
from extract.encoders.transformer import load_model
from extract.plan import Reader, RowPlan, plan_batches, read_rows
from extract.streams import Workers
from mmsa_cache.names import MODALITIES

from .bench import Bench, evenly
from .probes import Busy, count_calls, seconds_of

END_TO_END = 0.9
"""Share of the compiled models' own rate that extraction should reach."""
TEXTBOOK = 8.0
"""How many times a textbook loop's rate it should reach."""
_LENGTHS = 16
"""Texts are padded to a multiple of this for the compiled model, so that few shapes are built."""
_SHARD_ROWS = 256


def run(bench: Bench) -> None:
    """Measures everything on the device's own precision."""
    figures, device = bench.figures, bench.device
    rows = {name: bench.rows(name) for name in MODALITIES}
    readers = bench.readers()
    encoders = {name: s.load(device) for name, s in bench.specs(bench.compute).items()}
    rate = _end_to_end(bench, rows, readers, encoders)
    with figures.attempt("reading pictures"):
        _reading(bench, rows["image"], readers["image"], encoders["image"])
    inputs: dict[str, list[Tensor]] = {}
    with figures.attempt("models on batches that lie on the device"):
        few = slice(-4 * bench.sizes.large_batch, None)  # the large pictures come first
        inputs = {n: read_rows(rows[n][few], readers[n], e).inputs for n, e in encoders.items()}
        for size in (bench.sizes.batch_size, bench.sizes.large_batch):
            alone = _models_alone(bench, encoders, inputs, size)
            figures.add(
                f"models alone, eager, {bench.compute}, batches of {size}", alone, "posts/s"
            )
            figures.add(f"extraction against them (batches of {size})", rate / alone)
    with figures.attempt("textbook loop"):
        slow = _textbook(bench)
        figures.add("textbook loop, float32, batches of 32", slow, "posts/s")
        figures.add("extraction against the textbook loop", rate / slow, at_least=TEXTBOOK)
    for name, values in inputs.items():
        with figures.attempt(f"launches a batch of {name}"):
            batch = values[: bench.sizes.batch_size]
            count = count_calls(partial(encoders[name].encode, batch), device).launches
            figures.add(f"launches a batch of {name}", count)
    with figures.attempt("largest batch"):
        _largest_batch(bench, encoders["image"], inputs["image"])
    with figures.attempt("compiled models"):  # last: compiling may take what is left of the time
        alone = _compiled(bench, encoders, inputs)
        figures.add("models alone, compiled, float16 weights", alone, "posts/s")
        figures.add("extraction against the compiled models", rate / alone, at_least=END_TO_END)


def _end_to_end(
    bench: Bench,
    rows: dict[str, RowPlan],
    readers: dict[str, Reader],
    encoders: dict[str, Any],
) -> float:
    """Files to sealed shards; posts a second of the last turn (the first one warms up)."""
    figures = bench.figures
    for turn in ("first turn", "last turn"):
        with Busy(bench.device) as busy:
            whole = run_end_to_end(
                rows,
                readers,
                encoders,
                bench.device,
                shard_rows=_SHARD_ROWS,
                batch_size=bench.sizes.batch_size,
            )
        rate = bench.sizes.posts / whole.seconds
        figures.add(f"extraction end to end, {turn}", rate, "posts/s")
    for name in ("read", "encode", "write"):
        figures.add(f"  {name}, threads' seconds in all", getattr(whole.timings, name), "s")
    with figures.attempt("device busy while extracting"):
        figures.add("device busy while extracting", busy.share)
        figures.add("  over time", busy.over_time())
    return rate


def _reading(bench: Bench, rows: RowPlan, reader: Reader, encoder: Any) -> None:
    """Pictures that all cores read, decode and prepare a second."""
    large = bench.sizes.large_posts
    width, height = bench.sizes.large_picture
    for what, part in (
        ("pictures read", rows[large:]),
        (f"pictures of {width * height / 1e6:.1f} megapixels read", rows[:large]),
    ):
        pieces = [part[i : i + 16] for i in range(0, len(part), 16)]
        with ThreadPoolExecutor(Workers.plan(bench.device).readers) as pool:
            started = time.perf_counter()
            for done in [pool.submit(read_rows, piece, reader, encoder) for piece in pieces]:
                done.result()
            rate = len(part) / (time.perf_counter() - started)
        bench.figures.add(what, rate, "pictures/s")


def _models_alone(
    bench: Bench, encoders: dict[str, Any], inputs: dict[str, list[Tensor]], size: int
) -> float:
    """Forward passes of both models over batches on the device; posts a second."""
    device = bench.device
    text, image = encoders["text"], encoders["image"]
    places = plan_batches(inputs["text"], size)
    texts = [_padded(text, [inputs["text"][i] for i in at], device) for at in places]
    pictures = [
        torch.stack(inputs["image"][i : i + size]).to(device)
        for i in range(0, len(inputs["image"]), size)
    ]

    def work() -> None:
        with torch.inference_mode(), precision(device, bench.compute):
            for ids, mask in texts:
                text.tower(ids, mask, "last")
            for pixels in pictures:
                image.tower((pixels / 255 - image.mean) / image.std, "last")

    work()
    seconds = min(seconds_of(work, device) for _ in range(bench.sizes.rounds))
    return len(inputs["image"]) / seconds


def _padded(
    text: Any, rows: Sequence[Tensor], device: torch.device, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Token ids and mask of a batch on the device, (batch, tokens) each."""
    longest = -(-max(map(len, rows)) // multiple) * multiple
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
    seconds = seconds_of(lambda: run_textbook(samples, text, image, bench.device), bench.device)
    return len(samples) / seconds


def _largest_batch(bench: Bench, encoder: Any, inputs: Sequence[Tensor]) -> None:
    """Doubles the batch until the device has no memory for it."""
    size = bench.sizes.batch_size
    found = 0
    while size <= bench.sizes.largest_batch:
        batch = [inputs[i % len(inputs)] for i in range(size)]
        try:
            encoder.encode(batch)
        except torch.OutOfMemoryError:
            break
        found, size = size, size * 2
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    reached = "at least " if size > bench.sizes.largest_batch else ""
    bench.figures.add("largest batch of pictures before out-of-memory", f"{reached}{found}", "rows")


def _compiled(bench: Bench, encoders: dict[str, Any], inputs: dict[str, list[Tensor]]) -> float:
    """Compiled models with half-precision weights on batches on the device; posts a second."""
    import timm

    device, size, dtype = bench.device, bench.sizes.large_batch, torch.float16
    text, image = encoders["text"], encoders["image"]
    specs = bench.specs("float16")
    bert = load_model(specs["text"].folder, 0).to(device, dtype)
    swin = timm.create_model(specs["image"].name, num_classes=0, **specs["image"].kwargs)
    swin = swin.eval().requires_grad_(False).to(device, dtype)
    places = plan_batches(inputs["text"], size)
    texts = [_padded(text, [inputs["text"][i] for i in at], device, _LENGTHS) for at in places]
    pictures = [
        ((torch.stack(inputs["image"][i : i + size]).to(device) / 255 - image.mean) / image.std).to(
            dtype
        )
        for i in range(0, len(inputs["image"]), size)
    ]
    bert_compiled = torch.compile(bert, dynamic=True, backend=bench.sizes.compiler)
    swin_compiled = torch.compile(swin.forward_features, backend=bench.sizes.compiler)

    def read_texts() -> None:
        with torch.inference_mode():
            for ids, mask in texts:
                bert_compiled(input_ids=ids, attention_mask=mask.long())

    def look_at_pictures() -> None:
        with torch.inference_mode():
            for pixels in pictures:
                swin_compiled(pixels)

    seconds = 0.0
    for what, work in (("BERT", read_texts), ("SwinV2", look_at_pictures)):
        bench.figures.add(f"compiling {what} and its first pass", seconds_of(work, device), "s")
        work()
        seconds += min(seconds_of(work, device) for _ in range(bench.sizes.rounds))
    return len(inputs["image"]) / seconds
