"""``mmsa bench extract --engine``: what an engine costs, on the user's own data and encoders."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch

from extract.bench_crew import bench_crew as bench
from extract.encoders.protocol import Encoder
from extract.plan import Reader, plan_rows
from extract.streams import rows_a_batch
from mmsa_cache.config.settings import Settings
from mmsa_cache.json_value import JsonObject
from mmsa_cache.native.ray_cluster import AUTO, ray_cluster

from ..extraction.crew import EngineRequest
from ..extraction.readers import reader_of
from ..session.encoders import EncoderSpec
from ..session.session import Session
from .extract import evenly


@dataclass(frozen=True, slots=True)
class _Resolved:
    """Encoders that are resolved already; the workers are on this machine."""

    specs: tuple[EncoderSpec, ...]
    seed: int

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        return self.specs[job].load(device), reader_of(self.specs[job], self.seed)


def bench_crew(settings: Settings, pairs: int, rounds: int, engine: EngineRequest) -> JsonObject:
    """Measures an engine; see `extract.bench_crew.bench_crew`.

    Args:
        settings: The command's settings.
        pairs: Pairs of the training split, evenly spread over it; all where there are fewer.
        rounds: Turns that each way takes.
        engine: Which one; the number of workers is the bench's own.

    Raises:
        DataError: There are no pairs.
    """
    session, cpu = Session(settings), torch.device("cpu")
    chosen = evenly(session.samples("train"), pairs)
    text, image = session.text_encoder(), session.image_encoder()
    specs: dict[str, EncoderSpec] = {"text": text, "image": image}
    source = _Resolved(tuple(specs.values()), settings.seed)
    batch_size = rows_a_batch(settings.extract.batch_size, cpu)
    with contextlib.ExitStack() as stack:
        if engine.engine == "ray":  # it stays connected from one crew to the next
            stack.enter_context(ray_cluster(engine.address or AUTO))
        figures = bench(
            {name: plan_rows(chosen, {}, "none", name) for name in specs},
            {name: reader_of(spec, settings.seed) for name, spec in specs.items()},
            {"text": text.load(cpu), "image": image.load(cpu)},
            lambda sealers, workers: replace(engine, workers=workers).crew(
                source, sealers, cpu, batch_size
            ),
            batch_size=batch_size,
            shard_rows=settings.cache.shard_rows,
            rounds=rounds,
        )
    return {**figures, "encoders": {name: spec.label for name, spec in specs.items()}}
