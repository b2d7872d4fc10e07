"""Which rows an extraction computes: new inputs only, each once, the same bytes in any order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from extract import publisher
from extract.encoders.protocol import Encoded
from extract.engine import extract
from extract.plan import EncodingJob, Row, RowPlan, plan_rows
from extract.publisher import Publisher
from extract.shards import encode_rows
from extract.streams import Timings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.table import SampleTable
from mmsa_cache.store.index import Index
from mmsa_cache.store.keys import variant_key
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.crew import InCompany, content, posts
from tests.support.rows import claimed, row_bytes, stored
from tests.support.shards import ENCODER, SHARDS, make_shard

CPU = torch.device("cpu")


def read(row: Row) -> tuple[int, str]:
    return int(row.sample.text or ""), f"variant {row.variant}"


def plan(samples: Sequence[Sample], copies: dict[int, int] | None = None) -> RowPlan:
    return plan_rows(samples, copies or {}, "policy:1", "text")


def run(root: Path, *plans: RowPlan, part: tuple[int, int] = (0, 1)) -> list[EncodingJob]:
    """Extracts into one store; windows have 8 rows, batches 4."""
    with claimed(root, part) as writer:
        jobs = [EncodingJob(rows, writer, part, reader=read, encoder=InCompany()) for rows in plans]
        extract(jobs, CPU, shard_rows=8, batch_size=4)
    return jobs


def counts(job: EncodingJob) -> tuple[int, int, int]:
    assert isinstance(job.encoder, InCompany)
    assert len(job.encoder.seen) == job.computed
    return job.computed, job.present, job.duplicates


def test_rows_are_distinct_and_in_order() -> None:
    samples = posts([5, 6, 5, 7])
    samples[1] = replace(samples[1], label=1)
    rows = plan(samples, {0: 2})
    found = [(row.sample.guid, row.variant) for row in rows]
    assert found == [
        ("p0", 0), ("p1", 0), ("p3", 0), ("p0", 1), ("p0", 2), ("p3", 1), ("p3", 2)
    ]  # fmt: skip
    assert [row.key for row in rows] == [key.tobytes() for key in rows.keys]
    assert [rows[i].key for i in (0, 4, -1)] == [
        bytes.fromhex(content(5))[:16],
        variant_key(content(5), "policy:1", 2),
        variant_key(content(7), "policy:1", 2),
    ]
    assert rows[1:5:3] == [rows[1], rows[4]]
    assert rows.sample_rows.table.tolist() == [[0, 3, 4], [1, -1, -1], [0, 3, 4], [2, 5, 6]]
    table = SampleTable.from_samples(replace(s, image_sha256=content(0)) for s in samples)
    same = plan(table, {0: 2})
    assert same.keys.tolist() == rows.keys.tolist()
    assert [(row.sample.guid, row.variant) for row in same] == found
    assert len(plan([])) == 0


def test_new_rows_alone_are_computed(tmp_path: Path) -> None:
    (first,) = run(tmp_path, plan(posts(range(200))))
    assert counts(first) == (200, 0, 0)
    before = row_bytes(tmp_path)
    (second,) = run(tmp_path, plan(posts([*range(100), *range(900, 910), *range(100, 200)])))
    assert counts(second) == (10, 200, 0)
    after = row_bytes(tmp_path)
    assert len(after) == 210
    assert before.items() <= after.items()


def test_names_labels_order_and_removal_compute_nothing(tmp_path: Path) -> None:
    run(tmp_path, plan(posts(range(30)), {0: 1}))
    before = row_bytes(tmp_path)
    for samples in (
        posts(range(30), "renamed {}"),
        posts(range(30), label=1),
        posts(range(29, -1, -1)),
        posts(range(3, 20)),
    ):
        (job,) = run(tmp_path, plan(samples, {0: 1}))
        assert counts(job) == (0, len(job.rows), 0)
    assert row_bytes(tmp_path) == before
    (job,) = run(tmp_path, plan(posts(range(30), label=1), {1: 2}))
    assert counts(job) == (30, 60, 0)  # the second copies; the first ones are those of before


def test_equal_inputs_are_one_row(tmp_path: Path) -> None:
    (job,) = run(tmp_path, plan(posts([1, 2, 1, 3, 2, 1]), {0: 1}))
    assert counts(job) == (6, 0, 6)
    assert len(row_bytes(tmp_path)) == 6


def test_jobs_of_one_folder_share_rows(tmp_path: Path) -> None:
    train, test = run(tmp_path, plan(posts(range(20)), {0: 1}), plan(posts([*range(15, 30), 29])))
    assert counts(train) == (40, 0, 0)
    assert counts(test) == (10, 0, 6)
    assert len(row_bytes(tmp_path)) == 50
    train, test = run(tmp_path, plan(posts(range(20)), {0: 1}), plan(posts([*range(15, 30), 29])))
    assert counts(train) == (0, 40, 0)
    assert counts(test) == (0, 10, 6)


class KilledError(BaseException):
    """Stands for a kill."""


def test_broken_off_and_continued_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = plan(posts(range(100)), {0: 1})
    run(tmp_path / "whole", rows)
    wanted = row_bytes(tmp_path / "whole")
    monkeypatch.setattr(publisher, "GATHERED_SECONDS", 0.0)
    publish = FeatureWriter.publish
    left = 0

    def killed_later(writer: FeatureWriter, shard: Shard) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return publish(writer, shard)

    monkeypatch.setattr(FeatureWriter, "publish", killed_later)
    done = 0
    for left in (0, 1, 3, 4):  # windows until the next kill
        expected = done + 8 * left
        with pytest.raises(KilledError):
            run(tmp_path / "broken", rows)
        assert Index.read(ENCODER.folder(tmp_path / "broken")).rows == expected
        done = expected
    left = 1000
    (job,) = run(tmp_path / "broken", rows)
    assert counts(job) == (200 - done, done, 0)
    assert row_bytes(tmp_path / "broken") == wanted


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_parts_give_the_rows_of_a_single_writer(tmp_path: Path, order: tuple[int, ...]) -> None:
    plans = plan(posts(range(100)), {0: 1}), plan(posts(range(90, 130)))
    run(tmp_path / "one", *plans)
    jobs = [run(tmp_path / "four", *plans, part=(number, 4)) for number in order]
    assert row_bytes(tmp_path / "four") == row_bytes(tmp_path / "one")
    assert sum(job.computed for part in jobs for job in part) == 230
    assert all(job.present == 0 for part in jobs for job in part)


def test_parts_at_once_give_the_rows_of_a_single_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "GATHERED_SECONDS", 0.0)
    rows = plan(posts(range(100)), {0: 1})
    run(tmp_path / "one", rows)
    done: list[int] = []

    def work(number: int) -> None:
        (job,) = run(tmp_path / "four", rows, part=(number, 4))
        done.append(job.computed)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [48, 48, 48, 56]
    assert row_bytes(tmp_path / "four") == row_bytes(tmp_path / "one")


def test_rows_that_another_writer_seals_meanwhile_are_not_computed(tmp_path: Path) -> None:
    """Another machine, whose claim is not seen here, runs the same command."""
    rows = plan(posts(range(80)))
    run(tmp_path / "one", rows)

    class Interrupted(InCompany):
        def encode(self, batch: Sequence[Tensor]) -> Encoded:
            if not self.seen:
                run(tmp_path / "store", rows, part=(0, 2))
            return super().encode(batch)

    with claimed(tmp_path / "store") as writer:
        job = EncodingJob(rows, writer, reader=read, encoder=Interrupted())
        extract([job], CPU, shard_rows=8, batch_size=4)
    assert row_bytes(tmp_path / "store") == row_bytes(tmp_path / "one")
    assert job.computed + job.present == 80
    assert job.present >= 8 * 2


def test_windows_are_gathered_before_they_are_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claimed(tmp_path) as writer:
        with contextlib.closing(Publisher(writer, Timings())) as gathered:
            assert [gathered.add(shard) for shard in (*SHARDS, None)] == [4, 4, 2, 0]
            assert writer.rows == 0
        assert writer.rows == 10
        monkeypatch.setattr(publisher, "GATHERED_BYTES", make_shard(0, 4, 1).nbytes)
        with contextlib.closing(Publisher(writer, Timings())) as gathered:
            gathered.add(make_shard(10, 1, 5))
            assert writer.rows == 10
            gathered.add(make_shard(11, 4, 6))
            assert writer.rows == 15
        with (
            contextlib.suppress(KilledError),
            contextlib.closing(Publisher(writer, Timings())) as gathered,
        ):
            gathered.add(make_shard(15, 2, 7))
            raise KilledError
        assert writer.rows == 17  # what was taken is sealed whatever ends the work
    assert [len(shard) for shard in stored(tmp_path)] == [10, 5, 2]


def test_shards_sealed_as_one_hold_the_rows_of_each(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, ENCODER)
    with writer.claim(lambda: None):
        writer.publish(make_shard(4, 2, 9))
        assert writer.publish(*SHARDS) == 8  # two rows were there
    second = stored(tmp_path)[1]
    for shard, at, own in zip(SHARDS, (0, 4, 6), ([0, 1, 2, 3], [2, 3], [0, 1]), strict=True):
        part, kept = second.take(np.arange(at, at + len(own))), shard.take(np.array(own))
        for name in ("keys", "offsets", "tokens", "pooled"):
            assert np.array_equal(getattr(part, name), getattr(kept, name))


def test_rows_without_a_store_have_their_keys() -> None:
    rows = plan(posts([3, 1, 3, 2]))
    found = encode_rows(rows, read, InCompany(), CPU, 2)
    assert found.keys.tolist() == rows.keys.tolist()
    assert found.pooled[:, 0, 0].tolist() == [3, 1, 2]
    assert found.operations == ["variant 0"] * 3
