"""Work of a local crew."""

from __future__ import annotations

from pathlib import Path

from extract.crew.driver import drive
from extract.crew.local import LocalCrew
from extract.crew.watching import Tally as Counts
from extract.plan import FeatureJob
from mmsa_cache.store.writer import FeatureWriter
from tests.support.crew import CompanySource, plan_of
from tests.support.rows import claimed

ROWS, WINDOW, BATCH = 200, 8, 4


def work(
    root: Path, source: CompanySource, workers: int = 2, crew: type[LocalCrew] = LocalCrew
) -> tuple[FeatureJob[FeatureWriter], Counts]:
    """Extracts by a crew; the job and what was counted."""
    with claimed(root) as writer:
        job = FeatureJob(plan_of(ROWS), writer, name="train text")
        made = crew(source, [writer.sealer], ["cpu"] * workers, BATCH)
        return job, drive([job], made, shard_rows=WINDOW)
