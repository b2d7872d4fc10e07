"""Speed of stage one, against its models alone and against a textbook loop.

Machines are shared and noisy, so the three ways take turns and figures are medians over rounds:

* end to end: `engine.extract`, files to sealed shards;
* model only: the same batches, already prepared and in memory, through the same streams;
* textbook: pairs read one after another with Pillow, texts padded to the maximum length, float32,
  one process, nothing overlapped, nothing written.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        readers: By modality.
        device: Where the models run.
        batch_size: Rows a forward pass.
        shard_rows: Rows a shard.
        rounds: Turns of each way.

    Returns:
        Rates in pairs a second; their ratios (medians over rounds, and every round's); seconds
        that threads spent reading, encoding and writing; bytes of the cache and of padded float32;
        the largest resident memory of the process up to the end of the first end-to-end turn.

    Raises:
        DataError: The pictures are missing.
    """
    read_sample_picture(samples[0])  # raises if there is only the store
    threads = ThreadCounts.plan(device)
    encoders: dict[str, TextEncoder | ImageEncoder] = {"text": text, "image": image}
    rows = {name: plan_rows(samples, {}, "none", name) for name in encoders}
    few = samples[: max(batch_size, len(samples) // 4)]
    run_textbook(few[:batch_size], text, image, device)  # first calls set kernels up
    rates: dict[str, list[float]] = {"end_to_end": [], "model_only": [], "textbook": []}
    timings: list[Timings] = []
    peak = 0
    for turn in range(rounds):
        extraction = run_end_to_end(
            rows, readers, encoders, device, shard_rows=shard_rows, batch_size=batch_size
        )
        timings.append(extraction.timings)
        rates["end_to_end"].append(len(samples) / extraction.seconds)
        if not turn:
            peak = peak_bytes()
        seconds = sum(
            _model_only(rows[name], readers[name], encoder, device, threads, batch_size, shard_rows)
            for name, encoder in encoders.items()
        )
        rates["model_only"].append(len(samples) / seconds)
        started = time.perf_counter()
        run_textbook(few, text, image, device)
        rates["textbook"].append(len(few) / (time.perf_counter() - started))
    return {
        **_summarize(rates, timings),
        "peak_rss_bytes": peak,
        "cache_bytes": extraction.sizes,
        "padded_float32_bytes": {
            name: encoder.size.padded_float32_bytes * len(rows[name])
            for name, encoder in encoders.items()
        },
        "pairs": len(samples),
        "rounds": rounds,
        "batch_size": batch_size,
        "readers": threads.readers,
        "streams": threads.streams,
    }


def _summarize(rates: Mapping[str, list[float]], timings: Sequence[Timings]) -> JsonObject:
    """Medians of the rounds, and the ratios of each round."""
    ratios = {
        f"ratio_{way}": [a / b for a, b in zip(rates["end_to_end"], rates[way], strict=True)]
        for way in ("model_only", "textbook")
    }
    return {
        **{f"{way}_pairs_per_s": statistics.median(values) for way, values in rates.items()},
        **{name: statistics.median(values) for name, values in ratios.items()},
        **{f"{name}_rounds": values for name, values in ratios.items()},
        "read_seconds": statistics.median(t.read for t in timings),
        "encode_seconds": statistics.median(t.encode for t in timings),
        "write_seconds": statistics.median(t.write for t in timings),
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
    """Extracts rows into a temporary store; all mappings are by modality."""
    with temporary_writers(encoders) as writers:
        jobs = [
            EncodingJob(rows[name], writers[name], reader=readers[name], encoder=encoder)
            for name, encoder in encoders.items()
        ]
        started = time.perf_counter()
        timings = extract(jobs, device, shard_rows=shard_rows, batch_size=batch_size)
        for writer in writers.values():
            writer.finish()
        seconds = time.perf_counter() - started
        sizes = {name: writer.bytes for name, writer in writers.items()}
    return EndToEnd(seconds, timings, sizes)


@contextlib.contextmanager
def temporary_writers(modalities: Iterable[str]) -> Iterator[dict[str, FeatureWriter]]:
    """Claimed writers of a temporary store, by modality."""
    with temporary_folder() as folder, contextlib.ExitStack() as claims:
        writers = {}
        for name in modalities:
            identity = EncoderIdentity.of_fields({"modality": name, "encoder": "measured"})
            writers[name] = FeatureWriter(folder, StoredEncoder.of(identity))
            claims.enter_context(writers[name].claim(lambda: None))
        yield writers


def _model_only(
    rows: RowPlan,
    reader: Reader,
    encoder: TextEncoder | ImageEncoder,
    device: torch.device,
    threads: ThreadCounts,
    batch_size: int,
    shard_rows: int,
) -> float:
    """Seconds of the forward passes alone, with inputs in memory."""
    windows = [rows[i : i + shard_rows] for i in range(0, len(rows), shard_rows)]
    model = HalvingEncoder(encoder)
    # Memory is reused as in `engine.extract`.
    with reuse_blocks(), contextlib.closing(Streams(device, threads.streams)) as streams:
        inputs = [read_rows(window, reader, encoder).inputs for window in windows]
        for batch in streams.submit(model, inputs[0][: batch_size * threads.streams], batch_size):
            batch.future.result()  # a new thread's first pass sets it up
        started = time.perf_counter()
        queued = [streams.submit(model, window, batch_size) for window in inputs]
        for batch in itertools.chain(*queued):
            batch.future.result()
        return time.perf_counter() - started


def run_textbook(
    samples: Sequence[Sample], text: TextEncoder, image: ImageEncoder, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """What a first script does: read, pad to the maximum, run, keep float32."""
    features = []
    for first in range(0, len(samples), 32):
        ids, masks, pictures = [], [], []
        for sample in samples[first : first + 32]:
            tokens = text.tokenizer(
                sample_text(sample),
                truncation=True,
                max_length=text.max_tokens,
                padding="max_length",
            )
            ids.append(torch.tensor(tokens["input_ids"]))
            masks.append(torch.tensor(tokens["attention_mask"]).bool())
            assert sample.image_path is not None
            content = read_picture(sample.image_path, MAX_IMAGE_BYTES)
            with Image.open(io.BytesIO(content)) as picture:
                pictures.append(_resize_by_pillow(picture.convert("RGB"), image.side, image.crop))
        pixels = torch.stack(pictures).to(device)
        with torch.no_grad():
            hidden = text.tower(torch.stack(ids).to(device), torch.stack(masks).to(device), "last")
            patches = image.tower((pixels - image.mean) / image.std, "last")
        features.append((hidden.hidden.cpu(), patches.patches.cpu()))
    return features


def _resize_by_pillow(picture: Image.Image, side: int, crop: float | None) -> Tensor:
    """Resizes and crops the centre as torchvision does; (3, side, side) in 0–1."""
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
