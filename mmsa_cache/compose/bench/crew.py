"""``mmsa bench extract --engine``: the overhead of an engine, on the user's data and encoders."""

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
from .extract import spread_samples


@dataclass(frozen=True, slots=True)
class _ResolvedEncoders:
    """Gives workers on this machine encoders that are already resolved."""

    specs: tuple[EncoderSpec, ...]
    seed: int

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        return self.specs[job].load(device), reader_of(self.specs[job], self.seed)


def bench_crew(settings: Settings, pairs: int, rounds: int, engine: EngineRequest) -> JsonObject:
    """Measures an engine; see `extract.bench_crew.bench_crew`.

    Args:
        settings: The command's settings.
        pairs: Pairs of the training split to measure on, evenly spread; at most all.
        rounds: Rounds of each way.
        engine: The engine; the measurement sets the number of workers.

    Raises:
        DataError: The training split is empty.
    """
    session, cpu = Session(settings), torch.device("cpu")
    samples = spread_samples(session.samples("train"), pairs)
    text, image = session.text_encoder(), session.image_encoder()
    specs: dict[str, EncoderSpec] = {"text": text, "image": image}
    source = _ResolvedEncoders(tuple(specs.values()), settings.seed)
    batch_size = rows_a_batch(settings.extract.batch_size, cpu)
    with contextlib.ExitStack() as stack:
        if engine.engine == "ray":  # crews share one connection
            stack.enter_context(ray_cluster(engine.address or AUTO))
        figures = bench(
            {name: plan_rows(samples, {}, "none", name) for name in specs},
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
