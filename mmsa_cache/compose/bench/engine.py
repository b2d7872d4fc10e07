"""``mmsa bench engine``: how the driver of an extraction and the store bear many workers.

The driver, the store and the shards are real; the encoders sleep, on a clock that skips the time
(`extract.crew.simulated`). Every size runs in a fresh process, which holds the driver alone: rows
are made up one piece at a time.
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

from .generated import generated_encoder
from .measured import Watch, alone

SHARD_ROWS = 256
FAULTY = Fleet(
    rows_a_second=20.0,
    worker_dies=900.0,
    node_dies=3600.0,
    slow_workers=0.05,
    slow_pieces=0.01,
    hung=0.001,
)
"""A fleet on which more goes wrong in minutes than on a real one in days; as slow as to have a
thousand pieces for 500,000 rows."""
_TEXT = "a post of some words that are as many as those of most posts, and a link to its picture"


class EngineRun(BaseModel):
    """One extraction by a simulated fleet, both modalities together; `seconds` are its own."""

    rows: int
    """Half of them texts, half pictures."""
    workers: int
    seconds: float
    """Of the fleet's clock: the skipped ones, and those that the driver and the store took."""
    at_least: float
    """Seconds without any fault, loading, or driver."""
    deaths: int
    nodes_lost: int
    hung: int
    """Pieces that never ended."""
    slow: int
    """Pieces that took longer than others."""
    given_up: int
    """Workers that the driver ended."""
    pieces: int
    """Handed out."""
    again: int
    """Of these: not for the first time."""
    wasted: float
    """Share of the rows encoded, whole or in part, that were lost or there already."""
    driver_seconds: float
    """Of the driver and its store."""
    driver_cpu_seconds: float
    driver_share: float
    """Of `seconds`, in which it used the processor."""
    peak_bytes: int
    """By which the process of the driver grew, its table of samples included."""
    bytes_a_row: float
    store_operations: int
    """Look-ups and entries by the driver."""
    store_operations_a_second: float
    """Of `seconds`."""
    store_share: float
    """Of `seconds`, in which the driver was in the store."""
    adopted: int
    """Shards that were entered."""
    index_bytes: int
    shards: int
    """In the index before they were merged."""
    merge_seconds: float
    files: int
    """After they were."""


class EngineGrowth(BaseModel):
    """Extractions of several sizes by one fleet."""

    simulated: bool = True
    """No encoder ran."""
    fleet: dict[str, float]
    runs: list[EngineRun]


def bench_engine(
    sizes: Sequence[int], workers: int, *, faults: bool = True, seed: int = 0
) -> EngineGrowth:
    """Simulates extractions, one after another.

    Args:
        sizes: Rows of each.
        workers: Of the fleet.
        faults: Whether it is `FAULTY`.
        seed: Of what goes wrong.

    Raises:
        DiskError: There is no room for one.
    """
    fleet = Fleet(rows_a_second=FAULTY.rows_a_second, workers=workers)
    if faults:
        fleet = replace(FAULTY, workers=workers)
    runs = []
    for rows in sizes:
        with temporary_folder() as folder:
            runs.append(alone(simulated, folder, rows, fleet, seed))
    return EngineGrowth(fleet=asdict(fleet), runs=runs)


def engine_table(found: EngineGrowth) -> list[dict[str, str]]:
    """A line a figure, a column a size."""
    sizes = [run.model_dump() for run in found.runs]
    return [
        {"rows": name} | {str(size["rows"]): _cell(size[name]) for size in sizes}
        for name in EngineRun.model_fields
        if name != "rows"
    ]


def _cell(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def simulated(root: Path, rows: int, fleet: Fleet, seed: int) -> EngineRun:
    """Extracts rows into a store by a fleet that sleeps, and looks whether each is there once."""
    watch, merge = Watch(), Watch()
    clock, tally = Clock(), Tally()
    started = clock()
    writers = [FeatureWriter(root, generated_encoder(modality)) for modality in MODALITIES]
    with contextlib.ExitStack() as claims, watch:
        for writer in writers:
            claims.enter_context(writer.claim(lambda: None))
        samples = _samples(rows // 2)
        plans = [plan_rows(samples, {}, "none", modality) for modality in MODALITIES]
        crew = SimulatedCrew([writer.sealer for writer in writers], fleet, clock, seed)
        jobs = [
            FeatureJob[Depot](plan, writer) for plan, writer in zip(plans, writers, strict=True)
        ]
        drive(jobs, crew, shard_rows=SHARD_ROWS, tally=tally, clock=clock)
    seconds, driver = clock() - started, watch.read()
    shards = sum(len(list(writer.folder.glob(SHARD_FILES))) for writer in writers)
    with merge:
        for writer in writers:
            writer.finish()
    for plan, writer in zip(plans, writers, strict=True):
        found = open_features(writer.folder)
        assert found.starts[-1] == len(plan), "a row is there twice, or is none"
        assert (found.find_rows(plan.keys) >= 0).all(), "a row is missing"
    seen = crew.seen
    return EngineRun(
        rows=rows,
        workers=fleet.workers,
        seconds=seconds,
        at_least=rows / fleet.rows_a_second / fleet.workers,
        deaths=seen.deaths,
        nodes_lost=seen.nodes_lost,
        hung=seen.hung,
        slow=seen.slowed,
        given_up=seen.ended,
        pieces=tally.pieces,
        again=tally.again,
        wasted=1 - rows / seen.rows,
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
        merge_seconds=merge.took().seconds,
        files=sum(len(list(writer.folder.glob(SHARD_FILES))) for writer in writers),
    )


def _samples(pairs: int) -> SampleTable:
    """Posts that there are not, as large as those of most data."""
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
