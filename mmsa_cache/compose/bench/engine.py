"""``mmsa bench engine``: the driver of an extraction and the store under many simulated workers.

Driver, store and shards are real. Encoders sleep, on a clock that skips the time
(`extract.crew.simulated`). Each size runs in a fresh process, so its memory is that of the driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from extract.crew.driver import drive
from extract.crew.protocol import Depot
from extract.crew.simulated import Clock, Fleet, SimulatedCrew
from extract.crew.watching import Tally
from extract.plan import FeatureJob, plan_rows
from mmsa_cache.data.table import COLUMNS as TABLE
from mmsa_cache.data.table import SampleTable
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.names import MODALITIES
from mmsa_cache.store.index import INDEX, SHARD_FILES
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.writer import FeatureWriter

from .cost import CostMeter, run_in_process
from .generated import generated_encoder

SHARD_ROWS = 256
FAULTY = Fleet(
    rows_a_second=20.0,
    worker_dies=900.0,
    node_dies=3600.0,
    slow_workers=0.05,
    slow_pieces=0.01,
    hung=0.001,
)
"""A fleet with far more faults than a real one, so slow that 500,000 rows are 1,000 pieces."""
_TEXT = "a post of some words that are as many as those of most posts, and a link to its picture"


class EngineRun(BaseModel):
    """An extraction by a simulated fleet, both modalities together."""

    rows: int
    """Texts and pictures, half each."""
    workers: int
    seconds: float
    """By the simulated clock: skipped time, and real time of driver and store."""
    at_least: float
    """Seconds without faults, loading and driver."""
    deaths: int
    nodes_lost: int
    hung: int
    """Pieces that never end."""
    slow: int
    """Pieces that take longer than others."""
    given_up: int
    """Workers that the driver stops."""
    pieces: int
    """Pieces handed out."""
    again: int
    """Pieces handed out repeatedly."""
    wasted: float
    """Share of the encoded rows that were lost or duplicates."""
    driver_seconds: float
    """Real time of driver and store."""
    driver_cpu_seconds: float
    driver_share: float
    """Processor time of the driver, as a share of `seconds`."""
    peak_bytes: int
    """Growth of the driver's process, including its sample table."""
    bytes_a_row: float
    store_operations: int
    """Look-ups and entries by the driver."""
    store_operations_a_second: float
    """Per second of `seconds`."""
    store_share: float
    """Time of the driver in the store, as a share of `seconds`."""
    adopted: int
    """Shards entered."""
    index_bytes: int
    shards: int
    """Shards before merging."""
    merge_seconds: float
    files: int
    """Shards after merging."""


class EngineGrowth(BaseModel):
    """Extractions of several sizes by one fleet."""

    simulated: bool = True
    """Whether encoders are simulated (always)."""
    fleet: dict[str, float]
    runs: list[EngineRun]


def bench_engine(
    sizes: Sequence[int], workers: int, *, faults: bool = True, seed: int = 0
) -> EngineGrowth:
    """Simulates extractions of several sizes.

    Args:
        sizes: Rows of each extraction.
        workers: Workers of the fleet.
        faults: Whether the fleet is `FAULTY`.
        seed: Seed of the faults.

    Raises:
        DiskError: There is no room for one.
    """
    fleet = Fleet(rows_a_second=FAULTY.rows_a_second, workers=workers)
    if faults:
        fleet = replace(FAULTY, workers=workers)
    runs = []
    for rows in sizes:
        with temporary_folder() as folder:
            runs.append(run_in_process(simulate, folder, rows, fleet, seed))
    return EngineGrowth(fleet=asdict(fleet), runs=runs)


def engine_table(result: EngineGrowth) -> list[dict[str, str]]:
    """A row for each measurement, a column for each size."""
    sizes = [run.model_dump() for run in result.runs]
    return [
        {"rows": name} | {str(size["rows"]): _cell(size[name]) for size in sizes}
        for name in EngineRun.model_fields
        if name != "rows"
    ]


def _cell(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def simulate(root: Path, rows: int, fleet: Fleet, seed: int) -> EngineRun:
    """Extracts rows with a simulated fleet, and checks that each is stored exactly once."""
    driving, merging = CostMeter(), CostMeter()
    clock, tally = Clock(), Tally()
    started = clock()
    writers = [FeatureWriter(root, generated_encoder(modality)) for modality in MODALITIES]
    with contextlib.ExitStack() as claims, driving:
        for writer in writers:
            claims.enter_context(writer.claim(lambda: None))
        samples = _samples(rows // 2)
        plans = [plan_rows(samples, {}, "none", modality) for modality in MODALITIES]
        crew = SimulatedCrew([writer.sealer for writer in writers], fleet, clock, seed)
        jobs = [
            FeatureJob[Depot](plan, writer) for plan, writer in zip(plans, writers, strict=True)
        ]
        drive(jobs, crew, shard_rows=SHARD_ROWS, tally=tally, clock=clock)
    seconds, driver = clock() - started, driving.process_cost()
    shards = sum(len(list(writer.folder.glob(SHARD_FILES))) for writer in writers)
    with merging:
        for writer in writers:
            writer.finish()
    for plan, writer in zip(plans, writers, strict=True):
        stored = open_features(writer.folder)
        assert stored.starts[-1] == len(plan), "a row is there twice, or is none"
        assert (stored.find_rows(plan.keys) >= 0).all(), "a row is missing"
    events = crew.stats
    return EngineRun(
        rows=rows,
        workers=fleet.workers,
        seconds=seconds,
        at_least=rows / fleet.rows_a_second / fleet.workers,
        deaths=events.deaths,
        nodes_lost=events.nodes_lost,
        hung=events.hung,
        slow=events.slowed,
        given_up=events.ended,
        pieces=tally.pieces,
        again=tally.retries,
        wasted=1 - rows / events.rows,
        driver_seconds=driver.seconds - clock.left_out,
        driver_cpu_seconds=driver.cpu_seconds - clock.cpu_left_out,
        driver_share=(driver.cpu_seconds - clock.cpu_left_out) / seconds,
        peak_bytes=driver.peak_bytes,
        bytes_a_row=driver.peak_bytes / rows,
        store_operations=tally.store_operations,
        store_operations_a_second=tally.store_operations / seconds,
        store_share=tally.store_seconds / seconds,
        adopted=tally.adopted,
        index_bytes=sum((writer.folder / INDEX).stat().st_size for writer in writers),
        shards=shards,
        merge_seconds=merging.time_cost().seconds,
        files=sum(len(list(writer.folder.glob(SHARD_FILES))) for writer in writers),
    )


def _samples(pairs: int) -> SampleTable:
    """Imaginary posts of usual size."""
    digests = np.random.default_rng(47).integers(0, 256, (2, pairs, 32), np.uint8)
    texts, images = (pa.array(map(bytes, rows), pa.binary(32)) for rows in digests)
    guids = [str(number) for number in range(pairs)]
    columns = {
        "guid": guids,
        "label": np.zeros(pairs, np.int32),
        "text": [_TEXT] * pairs,
        "text_sha256": texts,
        "image_sha256": images,
        "text_key": pa.array((row[:16].tobytes() for row in digests[0]), pa.binary(16)),
        "image": [f"images/{guid}.jpg" for guid in guids],
    }
    return SampleTable(pa.table(columns, schema=TABLE), Path("data"))
