"""``mmsa bench extract``: the speed of stage one on the user's data and encoders."""

from __future__ import annotations

from collections.abc import Sequence

from extract import precision
from extract.bench import bench
from extract.plan import plan_rows
from extract.streams import rows_a_batch
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DataError
from mmsa_cache.json_value import JsonObject
from mmsa_cache.native.device import device_name

from ..extraction.readers import reader_of
from ..session.session import Session


def bench_extract(
    settings: Settings, pairs: int, rounds: int, *, precision_effect: bool = False
) -> JsonObject:
    """Measures stage one; see `extract.bench.bench`.

    Args:
        settings: The command's settings.
        pairs: Pairs of the training split to measure on, evenly spread; at most all.
        rounds: Rounds of each way.
        precision_effect: Whether features of half precision are also compared with those of
            float32, on the pairs of one shard.

    Raises:
        DataError: The training split is empty.
    """
    session = Session(settings)
    samples, device = spread_samples(session.samples("train"), pairs), session.device
    text, image = session.text_encoder(), session.image_encoder()
    readers = {"text": reader_of(text, settings.seed), "image": reader_of(image, settings.seed)}
    batch_size = rows_a_batch(settings.extract.batch_size, device)
    shard_rows = settings.cache.shard_rows
    figures = bench(
        samples,
        text.load(device),
        image.load(device),
        readers,
        device,
        batch_size=batch_size,
        shard_rows=shard_rows,
        rounds=rounds,
    )
    if precision_effect:
        figures["precision_effect"] = {
            name: precision.precision_effect(
                spec,
                plan_rows(samples, {}, "none", name)[:shard_rows],
                readers[name],
                device,
                batch_size,
            )
            for name, spec in (("text", text), ("image", image))
        }
    return {
        **figures,
        "encoders": {"text": text.label, "image": image.label},
        "compute": text.options.compute,
        "device": device_name(device),
    }


def spread_samples(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, evenly spread.

    Raises:
        DataError: There are none.
    """
    if not samples:
        raise DataError("The training split is empty: there is nothing to measure.")
    count = min(most, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]
