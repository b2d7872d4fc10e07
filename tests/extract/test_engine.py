"""The extraction loop: order, threads, memory, unreadable rows; and how pictures are decoded."""

from __future__ import annotations

import io
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode

from extract import publisher
from extract.encoders.padding import padded_length
from extract.encoders.protocol import Encoded
from extract.engine import extract
from extract.inputs.decode import decode, fit_square, needed_side
from extract.plan import EncodingJob, PreparedRows, Row, RowPlan, plan_batches, read_rows
from extract.shards import estimate_bytes
from extract.streams import HalvingEncoder, Streams, ThreadCounts
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.extraction import (
    CPU,
    LENGTHS,
    NO_MEMORY,
    Counting,
    make_rows,
    read,
    run,
)
from tests.support.rows import claimed, row_bytes, stored
from tests.support.shards import ENCODER, contents


class Equal(Counting):
    """The same of inputs that are all equally long."""

    equal_inputs = True

    def prepare(self, values: Iterable[int]) -> list[Tensor]:
        return [torch.full((3,), value) for value in values]


@pytest.mark.parametrize("workers", [ThreadCounts(1, 1), ThreadCounts(3, 4), None])
def test_every_row_comes_back_in_its_place(tmp_path: Path, workers: ThreadCounts | None) -> None:
    rows, encoder = make_rows(tmp_path), Counting()
    sealed = run(tmp_path / "cache", rows, encoder, threads=workers)
    assert sealed == [8] * 6 + [2]
    number = 0
    for shard in stored(tmp_path / "cache"):
        for place, key in enumerate(shard.keys):
            part = shard.tokens[shard.offsets[place] : shard.offsets[place + 1]]
            assert key.tobytes() == sha256(str(number).encode()).digest()[:16]
            assert shard.operations[place] == "made 0"
            assert part.tolist() == [[number, LENGTHS[number]]] * LENGTHS[number]
            assert shard.pooled[place, 0].tolist() == [number, LENGTHS[number]]
            number += 1
    assert number == len(rows)
    # batches stay inside a window and hold neighbours in length
    assert all(len({row // 8 for row in batch}) == 1 for batch in encoder.batches)
    for batch in encoder.batches:
        assert [LENGTHS[row] for row in batch] == sorted(LENGTHS[row] for row in batch)
    assert encoder.intra_op == {1}
    assert len(encoder.threads) <= (workers or ThreadCounts.plan(CPU)).streams


@pytest.mark.parametrize("batch_size", [3, 4, 20])
def test_equally_long_rows_come_back_in_their_places(tmp_path: Path, batch_size: int) -> None:
    rows, encoder = make_rows(tmp_path), Equal()
    run(tmp_path / "cache", rows, encoder, batch_size=batch_size, shard_rows=40)
    found = [
        value for shard in stored(tmp_path / "cache") for value in shard.pooled[:, 0, 0].tolist()
    ]
    assert found == list(range(len(rows)))
    batches = [list(range(i, min(i + batch_size, 40))) for i in range(0, 40, batch_size)]
    batches += [list(range(i, min(i + batch_size, 50))) for i in range(40, 50, batch_size)]
    assert sorted(encoder.batches) == batches


def test_a_batch_is_run_as_soon_as_its_rows_are_read(tmp_path: Path) -> None:
    encoder = Equal()
    seen = threading.Event()

    def reader(row: Row) -> tuple[int, str]:
        if int(row.sample.guid) >= 32:  # rows of the same window that are read later
            assert seen.wait(20), "nothing was encoded before the whole window was read"
        return read(row)

    real = encoder.encode

    def encode(batch: Sequence[Tensor]) -> Encoded:
        seen.set()
        return real(batch)

    encoder.encode = encode  # type: ignore[method-assign]
    run(tmp_path / "cache", make_rows(tmp_path), encoder, reader, batch_size=16, shard_rows=50)


def test_the_loop_beside_a_device_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: windows are sealed by a thread, reading is far ahead, batches hold positions."""
    monkeypatch.setattr("extract.streams._GPU_POSITIONS", 50)
    monkeypatch.setattr(publisher, "GATHERED_BYTES", 500)
    rows, encoder = make_rows(tmp_path), Counting()
    run(tmp_path / "here", rows, Counting())
    run(tmp_path / "there", rows, encoder, device=torch.device("meta"), threads=ThreadCounts(4, 2))
    assert row_bytes(tmp_path / "there") == row_bytes(tmp_path / "here")
    lengths = [[LENGTHS[row] for row in batch] for batch in encoder.batches]
    assert max(len(batch) * padded_length(max(batch)) for batch in lengths) <= 50
    assert max(map(len, lengths)) == 3
    equal = Equal()  # has no positions to be padded
    run(tmp_path / "equal", rows, equal, device=torch.device("meta"), threads=ThreadCounts(4, 2))
    assert {len(batch) for batch in equal.batches} == {4, 2}


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    from extract.encoders.image import resolve_image

    rng = np.random.default_rng(0)
    for i in range(len(LENGTHS)):
        noise = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    values = {"mean": None, "std": None, "size": None, "fit": "crop", "seed": 1}
    encoder = resolve_image("test_vit", "random", {}, **values).load(CPU)

    def picture(row: Row) -> tuple[Any, str]:
        path = row.sample.image_path
        return decode(path.read_bytes(), path.name), ""

    rows = make_rows(tmp_path)
    found = []
    for number, workers in enumerate((ThreadCounts(1, 1), ThreadCounts(4, 3))):
        run(tmp_path / str(number), rows, encoder, picture, threads=workers)
        found.append(contents(ENCODER.folder(tmp_path / str(number))))
    assert len(row_bytes(tmp_path / "0")) == 50
    assert {k: v for k, v in found[0].items() if k.endswith("h5")} == {
        k: v for k, v in found[1].items() if k.endswith("h5")
    }


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_batches_are_halved_down_to_one_row_and_stay_so(tmp_path: Path, error: Exception) -> None:
    said: list[str] = []
    encoder, one = Counting(memory=1, error=error), ThreadCounts(1, 1)
    run(tmp_path / "a", make_rows(tmp_path), encoder, notice=said.append, threads=one)
    assert encoder.tried[:2] == [4, 2]
    assert set(encoder.tried[2:]) == {1}
    assert sorted(row for batch in encoder.batches for row in batch) == list(range(50))
    assert said == ["No memory for 4 rows at once: 1 are run."]
    run(tmp_path / "b", make_rows(tmp_path), Counting())
    assert row_bytes(tmp_path / "a") == row_bytes(tmp_path / "b")
    with pytest.raises(DeviceError, match="no memory for one row at a time"):
        run(tmp_path / "c", make_rows(tmp_path), Counting(memory=0, error=error))


def test_both_threads_halve_in_step_and_other_errors_are_none_of_memory() -> None:
    encoder = Counting(memory=3)
    model, streams = HalvingEncoder(encoder), Streams(CPU, 2)
    batches = streams.submit(model, encoder.prepare(list(range(48))), 12)
    assert sum(len(part.lengths) for b in batches for part in b.future.result()[0]) == 48
    streams.close()
    assert model.max_rows == 3
    assert sum(size > 3 for size in encoder.tried) <= 2 * 2  # 12 and 6, by each thread once
    for said in (
        "CUDA error: an illegal memory access",
        "could not create a primitive descriptor for the matmul primitive",
    ):
        broken = Counting(memory=0, error=RuntimeError(said))
        with pytest.raises(RuntimeError, match=said):
            HalvingEncoder(broken).run(broken.prepare([0, 1]))


@pytest.mark.parametrize("encoder", [Counting, Equal])
def test_unreadable_rows_are_all_named_after_what_comes_before_is_sealed(
    tmp_path: Path, encoder: type[Counting]
) -> None:
    rows = make_rows(tmp_path)

    def reader(row: Row) -> tuple[int, str]:
        if row.sample.guid in ("17", "30", "49"):
            raise DataError(f"{row.sample.guid}.jpg: cannot be decoded")
        return read(row)

    sealed: list[int] = []
    with pytest.raises(DataError, match=r"3 sample\(s\) cannot be read") as caught:
        run(tmp_path / "cache", rows, encoder(), reader, sealed=sealed)
    assert [line.split(".")[0] for line in caught.value.problems] == ["17", "30", "49"]
    assert sealed == [8, 8]
    again = run(tmp_path / "cache", rows, encoder())  # mended: it goes on from there
    assert again == [8] * 4 + [2]


def test_an_overflow_is_found_in_the_first_batch(tmp_path: Path) -> None:
    class Huge(Counting):
        def encode(self, batch: Sequence[Tensor]) -> Encoded:
            time.sleep(0.05)
            found = super().encode(batch)
            return Encoded(found.tokens, found.lengths, found.pooled * 60000 * 60000, None)

    encoder, one = Huge(), ThreadCounts(1, 1)
    said = r"0: pool mean \(the last layer\) of counting is not finite in float16"
    with pytest.raises(DeviceError, match=said):
        run(tmp_path / "cache", make_rows(tmp_path), encoder, threads=one, shard_rows=50)
    assert len(encoder.batches) <= 3
    assert not list(tmp_path.rglob("*.h5"))


def extract_two(
    root: Path, rows: RowPlan, readers: list[Any], device: torch.device = CPU, **changes: Any
) -> None:
    with ExitStack() as claims:
        jobs = []
        for name, reader in zip("ab", readers, strict=True):
            writer = claims.enter_context(claimed(root / name))
            jobs.append(
                EncodingJob(rows, writer, reader=reader, encoder=changes.get(name) or Counting())
            )
        extract(jobs, device, shard_rows=8, batch_size=4)


def test_a_job_is_begun_before_the_one_before_it_is_encoded(tmp_path: Path) -> None:
    begun = threading.Event()

    class Last(Counting):
        def encode(self, batch: Sequence[Tensor]) -> Encoded:
            if 49 in [int(value[0]) for value in batch]:
                assert begun.wait(10)  # the first job cannot be finished before
            return super().encode(batch)

    def second(row: Row) -> tuple[int, str]:
        begun.set()
        return read(row)

    rows = make_rows(tmp_path)
    extract_two(tmp_path, rows, [read, second], a=Last())
    run(tmp_path / "alone", rows, Counting())
    for name in "ab":
        assert row_bytes(tmp_path / name) == row_bytes(tmp_path / "alone")


def test_beside_a_device_a_job_is_begun_before_the_one_before_it_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, real = threading.Event(), FeatureWriter.publish

    class Second(Counting):
        def encode(self, batch: Sequence[Tensor]) -> Encoded:
            if 49 in [int(value[0]) for value in batch]:  # what the first job cannot wait for
                begun.set()
            return super().encode(batch)

    def publish(writer: FeatureWriter, *shards: Shard) -> int:
        assert begun.wait(20)
        return real(writer, *shards)

    monkeypatch.setattr(FeatureWriter, "publish", publish)
    extract_two(tmp_path, make_rows(tmp_path), [read, read], torch.device("meta"), b=Second())
    assert row_bytes(tmp_path / "a") == row_bytes(tmp_path / "b")


def test_beside_a_device_jobs_of_one_folder_are_sealed_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing, real = threading.Lock(), FeatureWriter.publish
    sealed: list[int] = []

    def publish(writer: FeatureWriter, *shards: Shard) -> int:
        assert sealing.acquire(blocking=False), "two threads seal at once"
        try:
            time.sleep(0.05)
            sealed.append(real(writer, *shards))
        finally:
            sealing.release()
        return sealed[-1]

    monkeypatch.setattr(FeatureWriter, "publish", publish)
    rows = make_rows(tmp_path)
    with claimed(tmp_path / "both") as writer:
        jobs = [
            EncodingJob(RowPlan.of_rows(part), writer, reader=read, encoder=Counting())
            for part in (rows[:20], rows[20:])
        ]
        extract(jobs, torch.device("meta"), shard_rows=8, batch_size=4)
    assert sealed == [20, 30]
    run(tmp_path / "alone", rows, Counting())
    assert len(row_bytes(tmp_path / "both")) == len(row_bytes(tmp_path / "alone")) == 50


def test_unreadable_rows_of_all_jobs_are_named_at_once(tmp_path: Path) -> None:
    def fails_on(bad: str) -> Any:
        def reader(row: Row) -> tuple[int, str]:
            if row.sample.guid == bad:
                raise DataError(f"{bad} is bad")
            return read(row)

        return reader

    rows = make_rows(tmp_path)
    with pytest.raises(DataError, match=r"2 sample\(s\) cannot be read") as caught:
        extract_two(tmp_path, rows, [fails_on("20"), fails_on("30")])
    assert caught.value.problems == ["20 is bad", "30 is bad"]
    with pytest.raises(DataError, match=r"1 sample\(s\) cannot be read"):
        extract_two(tmp_path, rows, [read, fails_on("30")])
    assert len(row_bytes(tmp_path / "a")) == 50
    assert len(row_bytes(tmp_path / "b")) == 24


class Tracked(Counting):
    """Knows how many inputs are held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = 0

    def prepare(self, values: Iterable[int]) -> list[Tensor]:
        inputs = [torch.full((2,), value) for value in values]
        for tensor in inputs:
            self.held += 1
            self.most = max(self.most, self.held)
            weakref.finalize(tensor, self._gone)
        return inputs

    def _gone(self) -> None:
        self.held -= 1


def test_an_unreadable_row_does_not_fill_the_memory_with_the_rest(tmp_path: Path) -> None:
    """To name every one, all rows are read; their inputs must not be kept."""
    rows = make_rows(tmp_path, 2000)

    def reader(row: Row) -> tuple[int, str]:
        if row.sample.guid in ("3", "1999"):
            raise DataError(f"{row.sample.guid} is bad")
        return read(row)

    encoder = Tracked()
    with pytest.raises(DataError, match=r"2 sample\(s\) cannot be read"):
        run(tmp_path / "cache", rows, encoder, reader, threads=ThreadCounts(1, 1), shard_rows=32)
    assert encoder.most < 300


def test_rows_are_prepared_one_by_one(tmp_path: Path) -> None:
    """A picture is much larger before it is prepared than after."""
    steps: list[str] = []

    def reader(row: Row) -> tuple[int, str]:
        steps.append("read")
        if row.sample.guid == "1":
            raise DataError("1 is bad")
        return read(row)

    class Noting(Counting):
        def prepare(self, values: Iterable[int]) -> list[Tensor]:
            inputs = []
            for value in values:
                steps.append("prepared")
                inputs.append(torch.full((1,), value))
            return inputs

    found = read_rows(make_rows(tmp_path)[:3], reader, Noting())
    assert steps == ["read", "prepared", "read", "read", "prepared"]
    assert [int(value) for value in found.inputs] == [0, 2]
    assert found.operations == ["made 0", "made 0"]
    assert found.problems == ["1 is bad"]


def test_memory_holds_few_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of the two windows that are run, and no shard that is sealed."""
    rows = make_rows(tmp_path, 400)
    publish, shards = FeatureWriter.publish, []

    def publish_and_note(writer: FeatureWriter, shard: Shard) -> int:
        shards.append(weakref.ref(shard.tokens))
        return publish(writer, shard)

    class Sealed(list[int]):
        def append(self, count: int) -> None:
            assert [shard() for shard in shards] == [None] * len(shards)
            super().append(count)

    monkeypatch.setattr(FeatureWriter, "publish", publish_and_note)
    monkeypatch.setattr(publisher, "GATHERED_SECONDS", 0.0)
    encoder = Tracked()
    sealed = run(
        tmp_path / "cache",
        rows,
        encoder,
        sealed=Sealed(),
        threads=ThreadCounts(2, 2),
        shard_rows=32,
    )
    assert len(sealed) == len(shards) == 13
    assert encoder.most <= 2 * 32 + 2 * 4


def test_the_callers_thread_leaves_the_cores_to_the_streams(tmp_path: Path) -> None:
    """torch would share the copying out among threads that wait in a loop for a core."""

    class Noting(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.called: set[str] = set()

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.called.add(function.__name__)
            return function(*args, **(kwargs or {}))

    with Noting() as mode:
        run(tmp_path / "cache", make_rows(tmp_path), Counting())
    assert {"numpy", "split"} <= mode.called
    assert mode.called <= {"numpy", "split", "__getitem__", "__get__", "from_file"}


def test_streams_drop_what_is_queued_when_they_close() -> None:
    class Slow(Counting):
        def encode(self, batch: Sequence[Tensor]) -> Encoded:
            time.sleep(0.05)
            return super().encode(batch)

    encoder = Slow()
    streams = Streams(CPU, 1)
    batches = streams.submit(HalvingEncoder(encoder), encoder.prepare(list(range(40))), 1)
    batches[0].future.result()
    streams.close()
    assert len(encoder.batches) <= 3


def test_size_is_estimated_from_an_even_sample(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    found = estimate_bytes(rows, read, Counting())
    assert found == 2 * (2 * np.mean(LENGTHS) + 2) + 64
    assert read_rows(rows[:3], read, Counting()).operations == ["made 0"] * 3
    assert PreparedRows().inputs == []


def test_batches_are_planned_by_length() -> None:
    inputs = [torch.zeros(n) for n in (5, 1, 3, 1, 4)]
    assert plan_batches(inputs, 2) == [[1, 3], [2, 4], [0]]


def jpeg(width: int, height: int, exif: bytes | None = None) -> tuple[bytes, Image.Image]:
    """A smooth picture, so that the reduction has something to agree on."""
    y, x = np.arange(height)[:, None], np.arange(width)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = (127 + 120 * np.sin(x / width * 9)).astype(np.uint8)
    pixels[..., 1] = (255 * y / height).astype(np.uint8)
    pixels[..., 2] = (255 * x / width).astype(np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.save(file, "JPEG", quality=95, **({"exif": exif} if exif else {}))
    return file.getvalue(), image


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (400, 300, (300, 400)),
        (1200, 900, (900, 1200)),
        (2400, 1200, (600, 1200)),
        (4000, 3000, (750, 1000)),
        (8000, 6000, (750, 1000)),
    ],
)
def test_large_jpegs_are_decoded_no_larger_than_twice_the_need(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    needed = needed_side(224, 0.9)
    assert needed == 248
    data, _ = jpeg(width, height)
    found = decode(data, "x", needed)
    assert found.shape == (*expected, 3)
    assert min(found.shape[:2]) >= min(2 * needed, height)
    whole = decode(data, "x")
    assert whole.shape == (height, width, 3)
    reduced, full = (fit_square(p, 224, 0.9).float() for p in (found, whole))
    assert (reduced - full).abs().mean() < 1.0  # of 255


def test_large_jpegs_with_exif_are_reduced_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    data, _ = jpeg(4000, 3000, exif.tobytes())
    turned = decode(data, "x", 248)
    assert turned.shape == (1000, 750, 3)
    upright = decode(jpeg(4000, 3000)[0], "x", 248)
    assert np.abs(np.rot90(upright, -1).astype(int) - turned.astype(int)).mean() < 1.0
