"""How fast stage one is, against its own models and against a textbook loop, in one run.

Machines are shared and noisy, so the three ways take turns and the figures are medians over rounds:

* end to end: `engine.extract`, files to sealed shards;
* model only: the same batches, already prepared and in memory, through the same streams;
* textbook: pairs read one after another with Pillow, texts padded to the maximum length, float32,
  one process, nothing overlapped, nothing written.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extract.encoders.image import ImageEncoder
from extract.encoders.text import TextEncoder
from mmsa_cache.data.pairs import MAX_IMAGE_BYTES, Sample, read_sample_picture, sample_text
from mmsa_cache.data.picture_paths import read_picture
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.json_value import JsonObject
from mmsa_cache.native.memory import peak_bytes, reuse_blocks
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.writer import FeatureWriter

from .engine import extract
from .plan import EncodingJob, Reader, RowPlan, plan_rows, read_rows
from .streams import HalvingEncoder, Streams, ThreadCounts, Timings


def bench(
    samples: Sequence[Sample],
    text: TextEncoder,
    image: ImageEncoder,
    readers: dict[str, Reader],
    device: torch.device,
    *,
    batch_size: int,
    shard_rows: int,
    rounds: int,
) -> JsonObject:
    """Measures the three ways on the same pairs.

    Args:
        samples: The pairs.
        text: The text encoder.
        image: The image encoder.
        readers: Of both modalities.
        device: Where the models run.
        batch_size: Rows a forward pass.
        shard_rows: Rows a shard.
        rounds: Turns that each way takes.

    Returns:
        Rates in pairs a second, their ratios (medians over rounds, and every round's), seconds
        that threads spent reading, encoding and writing, bytes of the cache and of padded float32,
        and the largest resident memory of the process until the first end-to-end turn was over.

    Raises:
        DataError: The pictures are not at hand.
    """
    read_sample_picture(samples[0])  # raises where only the store is at hand
    workers = ThreadCounts.plan(device)
    encoders: dict[str, TextEncoder | ImageEncoder] = {"text": text, "image": image}
    rows = {name: plan_rows(samples, {}, "none", name) for name in encoders}
    few = samples[: max(batch_size, len(samples) // 4)]
    run_textbook(few[:batch_size], text, image, device)  # first calls set kernels up
    end_to_end, model_only, textbook = [], [], []
    timings: list[Timings] = []
    peak = 0
    for turn in range(rounds):
        whole = run_end_to_end(
            rows, readers, encoders, device, shard_rows=shard_rows, batch_size=batch_size
        )
        timings.append(whole.timings)
        end_to_end.append(len(samples) / whole.seconds)
        if not turn:
            peak = peak_bytes()
        with reuse_blocks():  # as `engine.extract` does
            seconds = sum(
                _model_only(rows[n], readers[n], encoder, device, workers, batch_size, shard_rows)
                for n, encoder in encoders.items()
            )
        model_only.append(len(samples) / seconds)
        started = time.perf_counter()
        run_textbook(few, text, image, device)
        textbook.append(len(few) / (time.perf_counter() - started))
    padded = {name: e.size.padded_float32_bytes * len(rows[name]) for name, e in encoders.items()}
    model_ratios = [a / b for a, b in zip(end_to_end, model_only, strict=True)]
    textbook_ratios = [a / b for a, b in zip(end_to_end, textbook, strict=True)]
    return {
        "end_to_end_pairs_per_s": statistics.median(end_to_end),
        "model_only_pairs_per_s": statistics.median(model_only),
        "textbook_pairs_per_s": statistics.median(textbook),
        "ratio_model_only": statistics.median(model_ratios),
        "ratio_textbook": statistics.median(textbook_ratios),
        "ratio_model_only_rounds": model_ratios,
        "ratio_textbook_rounds": textbook_ratios,
        "read_seconds": statistics.median(t.read for t in timings),
        "encode_seconds": statistics.median(t.encode for t in timings),
        "write_seconds": statistics.median(t.write for t in timings),
        "peak_rss_bytes": peak,
        "cache_bytes": whole.sizes,
        "padded_float32_bytes": padded,
        "pairs": len(samples),
        "rounds": rounds,
        "batch_size": batch_size,
        "readers": workers.readers,
        "streams": workers.streams,
    }


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """One extraction, from files to sealed shards."""

    seconds: float
    timings: Timings
    sizes: dict[str, int]
    """Bytes of the cache, by modality."""


def run_end_to_end(
    rows: Mapping[str, RowPlan],
    readers: Mapping[str, Reader],
    encoders: Mapping[str, TextEncoder | ImageEncoder],
    device: torch.device,
    *,
    shard_rows: int,
    batch_size: int,
) -> EndToEnd:
    """Extracts rows into a store that is removed; all is given by modality."""
    with temporary_folder() as folder, contextlib.ExitStack() as claims:
        jobs, writers = [], {}
        for name, encoder in encoders.items():
            identity = EncoderIdentity.of_fields({"modality": name, "encoder": "measured"})
            writer = writers[name] = FeatureWriter(folder, StoredEncoder.of(identity))
            claims.enter_context(writer.claim(lambda: None))
            jobs.append(EncodingJob(rows[name], writer, reader=readers[name], encoder=encoder))
        started = time.perf_counter()
        timings = extract(jobs, device, shard_rows=shard_rows, batch_size=batch_size)
        for writer in writers.values():
            writer.finish()
        seconds = time.perf_counter() - started
        sizes = {name: writer.bytes for name, writer in writers.items()}
    return EndToEnd(seconds, timings, sizes)


def _model_only(
    rows: RowPlan,
    reader: Reader,
    encoder: TextEncoder | ImageEncoder,
    device: torch.device,
    workers: ThreadCounts,
    batch_size: int,
    shard_rows: int,
) -> float:
    """Seconds of the forward passes alone, over batches in memory."""
    chunks = [rows[i : i + shard_rows] for i in range(0, len(rows), shard_rows)]
    inputs = [read_rows(chunk, reader, encoder).inputs for chunk in chunks]
    streams, model = Streams(device, workers.streams), HalvingEncoder(encoder)
    try:
        for batch in streams.submit(model, inputs[0][: batch_size * workers.streams], batch_size):
            batch.future.result()  # a new thread's first pass sets it up
        started = time.perf_counter()
        queued = [streams.submit(model, values, batch_size) for values in inputs]
        for batches in queued:
            for batch in batches:
                batch.future.result()
        return time.perf_counter() - started
    finally:
        streams.close()


def run_textbook(
    samples: Sequence[Sample], text: TextEncoder, image: ImageEncoder, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """What a first script does: read, pad to the maximum, run, keep float32."""
    kept = []
    for first in range(0, len(samples), 32):
        part = samples[first : first + 32]
        ids, masks, pictures = [], [], []
        for sample in part:
            encoded = text.tokenizer(
                sample_text(sample),
                truncation=True,
                max_length=text.max_tokens,
                padding="max_length",
            )
            ids.append(torch.tensor(encoded["input_ids"]))
            masks.append(torch.tensor(encoded["attention_mask"]).bool())
            assert sample.image_path is not None
            picture = read_picture(sample.image_path, MAX_IMAGE_BYTES)
            with Image.open(io.BytesIO(picture)) as file:
                pictures.append(_pillow_square(file.convert("RGB"), image.side, image.crop))
        pixels = torch.stack(pictures).to(device)
        with torch.no_grad():
            hidden = text.tower(torch.stack(ids).to(device), torch.stack(masks).to(device), "last")
            patches = image.tower((pixels - image.mean) / image.std, "last")
        kept.append((hidden.hidden.cpu(), patches.patches.cpu()))
    return kept


def _pillow_square(picture: Image.Image, side: int, crop: float | None) -> Tensor:
    """Resize and centre crop as torchvision's transforms do it; (3, side, side), 0–1."""
    if crop is None:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    else:
        short = int(side / crop)
        scale = short / min(picture.size)
        picture = picture.resize(
            (max(short, round(picture.width * scale)), max(short, round(picture.height * scale))),
            Image.Resampling.BICUBIC,
        )
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0
