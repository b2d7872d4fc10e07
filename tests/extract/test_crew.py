"""The driver: retries, listing, deadlines, stragglers, with workers that are told what to do."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from extract.crew.driver import drive
from extract.crew.pieces import MAX_ROWS, Backlog, Piece
from extract.crew.protocol import Lost, PieceReply, Refused, Sealed
from extract.crew.watching import Tally
from extract.plan import FeatureJob, Row, plan_rows
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.files.disk import DISK, Disk
from mmsa_cache.store.keys import as_keys
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.sealer import FolderSealer
from mmsa_cache.store.writer import FeatureWriter
from tests.support.extraction import make_samples
from tests.support.faulty import Counting, Deadly, forked
from tests.support.rows import claimed, row_bytes
from tests.support.shards import writer_of

ROWS, WINDOW = 60, 4


def encoded(rows: tuple[Row, ...]) -> Shard:
    """Features that say which row they are of."""
    numbers = np.array([[int(row.sample.guid)] for row in rows], np.float16)
    count = len(rows)
    return Shard(
        as_keys(row.key for row in rows),
        [""] * count,
        np.arange(count + 1),
        numbers,
        numbers[:, None],
        ("mean",),
    )


Answer = Callable[[Piece], list[PieceReply]]


class Told:
    """Workers that answer at once, as a function says; the clock goes on with every wait.

    Args:
        answer: What is said of a piece; nothing for no answer.
        workers: How many.
    """

    def __init__(self, answer: Answer, workers: int = 2) -> None:
        self.answer, self.workers = answer, workers
        self.hands: deque[Piece] = deque()
        self.silent: dict[int, Piece] = {}
        self.pieces: list[Piece] = []
        self.now, self.closed = 0.0, False

    @property
    def capacity(self) -> int:
        return 2 * self.workers - len(self.hands) - len(self.silent)

    def submit(self, piece: Piece) -> None:
        assert self.capacity > 0
        assert sum(piece.windows) == len(piece.rows)
        self.pieces.append(piece)
        self.hands.append(piece)

    def wait(self, timeout: float) -> list[PieceReply]:
        self.now += timeout
        if not self.hands:
            self.now += 60
            return []
        piece = self.hands.popleft()
        said = self.answer(piece)
        if not said:
            self.silent[piece.number] = piece
        return said

    def forget(self, piece: int) -> None:
        del self.silent[piece]

    def close(self) -> None:
        self.closed = True


@contextmanager
def share(root: Path, count: int = ROWS) -> Iterator[tuple[FeatureJob[FeatureWriter], list[int]]]:
    """A job of a claimed store, and the rows that are shown of it."""
    shown: list[int] = []
    with claimed(root) as writer:
        plan = plan_rows(make_samples(count), {}, "none", "text")
        yield (
            FeatureJob(plan, writer, watch=lambda: nullcontext(shown.append), name="train text"),
            shown,
        )


def seal(job: FeatureJob[FeatureWriter]) -> Answer:
    """Does pieces as they should be, a row a second."""

    def answer(piece: Piece) -> list[PieceReply]:
        entry = job.writer.sealer.seal([encoded(piece.rows)])
        rows = len(piece.rows)
        return [Sealed(piece.number, (entry,), rows, float(rows), "here")]

    return answer


def guids(pieces: list[Piece]) -> list[int]:
    return [int(row.sample.guid) for piece in pieces for row in piece.rows]


def test_every_row_is_there_once_and_pieces_fit_their_time(tmp_path: Path) -> None:
    with share(tmp_path, 400) as (job, shown):
        crew = Told(seal(job))
        tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
        assert crew.closed
        assert len(row_bytes(tmp_path)) == 400
        assert guids(crew.pieces) == list(range(400))
        assert (sum(shown), job.computed, job.present, job.total) == (400, 400, 0, 400)
        assert (tally.encoded, tally.wasted, tally.retries) == (400, 0, 0)
    windows = [len(piece.windows) for piece in crew.pieces]
    assert windows[:4] == [1] * 4  # no rate is known
    assert max(windows) == 5  # 20 seconds
    assert windows[-1] == 1


def test_what_fails_is_tried_again_and_in_the_end_listed(tmp_path: Path) -> None:
    """Row 17 kills every worker that touches it, row 30 is refused once."""
    refused: list[int] = []

    with share(tmp_path) as (job, shown):

        def answer(piece: Piece) -> list[PieceReply]:
            numbers = guids([piece])
            if 17 in numbers:
                return [Lost(piece.number, "killed by SIGKILL")]
            if 30 in numbers and not refused:
                refused.append(piece.number)
                return [Refused(piece.number, "out of luck")]
            return seal(job)(piece)

        crew, tally = Told(answer), Tally()
        with pytest.raises(DeviceError, match="1 piece") as caught:
            drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now, tally=tally)
        assert "train text, 4 rows from 16 to 19: killed by SIGKILL" in str(caught.value)
        assert caught.value.problems
        assert (sum(shown), tally.lost, job.computed) == (ROWS - 4, 3, ROWS - 4)
        crew = Told(seal(job))
        drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
        assert guids(crew.pieces) == [16, 17, 18, 19]
    assert len(row_bytes(tmp_path)) == ROWS


def test_several_that_fail_side_by_side_do_not_keep_the_rest_waiting(tmp_path: Path) -> None:
    with share(tmp_path) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            if min(guids([piece])) < 3 * WINDOW:
                return [Lost(piece.number, "killed by SIGKILL")]
            return seal(job)(piece)

        crew = Told(answer, workers=1)
        with pytest.raises(DeviceError, match="3 piece") as caught:
            drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
    assert "train text, 4 rows from 4 to 7: killed by SIGKILL" in str(caught.value)
    assert len(row_bytes(tmp_path)) == ROWS - 3 * WINDOW


def test_unreadable_rows_are_named_and_the_rest_is_there(tmp_path: Path) -> None:
    with share(tmp_path) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            bad = [
                f"{row.sample.guid}: unreadable"
                for row in piece.rows
                if row.sample.guid in ("5", "9")
            ]
            if not bad:
                return seal(job)(piece)
            return [Refused(piece.number, bad[0], tuple(bad), retry=False)]

        crew = Told(answer)
        with pytest.raises(DataError, match="2 sample") as caught:
            drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
        assert caught.value.problems == ["5: unreadable", "9: unreadable"]
    assert len(row_bytes(tmp_path)) == ROWS - 2 * WINDOW


def test_who_does_not_answer_is_forgotten(tmp_path: Path) -> None:
    silent: list[int] = []

    with share(tmp_path) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            if 20 in guids([piece]) and len(silent) < 2:
                silent.append(piece.number)
                return []
            return seal(job)(piece)

        crew = Told(answer)
        tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
    assert tally.retries >= 2
    assert len(row_bytes(tmp_path)) == ROWS


def test_a_store_that_workers_do_not_see_is_told(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with share(tmp_path / "cache") as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            sealer = FolderSealer(elsewhere, job.writer.sealer.fingerprint)
            entry = sealer.seal([encoded(piece.rows)])
            return [Sealed(piece.number, (entry,), len(piece.rows), 1.0, "there")]

        crew = Told(answer)
        with pytest.raises(DeviceError, match="No worker works: its shards are not where"):
            drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)


def test_pieces_are_bounded_however_quick_workers_are() -> None:
    windows = np.split(np.arange(1 << 20), 4096)
    backlog = Backlog([windows])
    sizes = []
    while backlog.job is not None:
        sizes.append(sum(map(len, backlog.take(1e6, 8))))
    assert sum(sizes) == 1 << 20
    assert max(sizes) == MAX_ROWS
    assert sizes[-1] == len(windows[0])


def test_a_straggler_is_overtaken(tmp_path: Path) -> None:
    """One worker takes for ever with a piece: the other one does it too, when all else is done."""
    slow: list[Piece] = []

    with share(tmp_path) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            if 20 in guids([piece]) and not slow:
                slow.append(piece)
                return []
            return seal(job)(piece)

        crew = Told(answer)
        tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
    assert crew.silent == {slow[0].number: slow[0]}  # nobody waited for it
    assert (tally.retries, tally.lost, tally.wasted) == (1, 0, 0)
    assert sorted(guids(crew.pieces)) == sorted([*range(ROWS), *guids(slow)])
    assert len(row_bytes(tmp_path)) == ROWS


def test_a_disk_that_is_full_ends_the_work_soon(tmp_path: Path) -> None:
    with share(tmp_path, 400) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            if int(piece.rows[0].sample.guid) < 100:
                return seal(job)(piece)
            return [Refused(piece.number, "cannot be written: No space left on device")]

        crew = Told(answer)
        with pytest.raises(DeviceError, match=r"No worker works: .* No space left"):
            drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
    assert 100 <= len(row_bytes(tmp_path)) == sum(len(piece.rows) for piece in crew.pieces[:9])


def test_two_drivers_share_a_store(tmp_path: Path) -> None:
    """Each counts what it entered itself; neither begins when the other one has sealed some."""
    begin = threading.Barrier(2)

    def work(number: int) -> None:
        writer = writer_of(tmp_path)
        with writer.claim(lambda: None, (number, 2)):  # each of its own part, in name
            plan = plan_rows(make_samples(400), {}, "none", "text")
            job = FeatureJob(plan, writer)
            crew = Told(seal(job))
            begin.wait(60)
            tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
            assert tally.encoded - tally.wasted == job.computed
            entered.append(job.computed)

    entered: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(row_bytes(tmp_path)) == 400
    assert len(entered) == 2
    assert sum(entered) == 400


def test_a_command_that_begins_meanwhile_enters_what_it_finds(tmp_path: Path) -> None:
    """Shards that are sealed and not entered; they are not done again, and count as its own."""
    with share(tmp_path) as (job, shown):

        def answer(piece: Piece) -> list[PieceReply]:
            said = seal(job)(piece)
            if 8 in guids([piece]):
                with claimed(tmp_path, (1, 2)):
                    pass
            return said

        crew = Told(answer)
        tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
        assert sorted(guids(crew.pieces)) == list(range(ROWS))
        assert (tally.encoded, tally.wasted) == (ROWS, WINDOW)
        assert (sum(shown), job.computed, job.present) == (ROWS, ROWS - WINDOW, WINDOW)
    assert len(row_bytes(tmp_path)) == ROWS


def test_rows_of_a_piece_that_was_refused_count_as_those_of_others(tmp_path: Path) -> None:
    with share(tmp_path) as (job, _):

        def answer(piece: Piece) -> list[PieceReply]:
            (said,) = seal(job)(piece)
            assert isinstance(said, Sealed)
            if 8 not in guids([piece]):
                return [said]
            return [Refused(piece.number, "out of luck", entries=said.entries)]

        crew = Told(answer)
        tally = drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now)
    assert (tally.encoded, tally.wasted, job.computed) == (ROWS, 0, ROWS)


def test_a_driver_killed_at_any_step_loses_nothing(tmp_path: Path) -> None:
    """What its workers had sealed is adopted, not done again."""
    plan = plan_rows(make_samples(24), {}, "none", "text")

    def work(root: Path, disk: Disk = DISK) -> int:
        writer = writer_of(root, disk=disk)
        with writer.claim(lambda: None):
            job = FeatureJob(plan, writer)
            crew = Told(seal(job))
            return drive([job], crew, shard_rows=WINDOW, clock=lambda: crew.now).encoded

    counting = Counting()
    work(tmp_path / "whole", counting)
    for at in range(1, len(counting.steps) + 1, 3):
        root = tmp_path / str(at)
        assert forked(lambda r=root, k=at: work(r, Deadly(k)) and None) == -signal.SIGKILL  # type: ignore[misc]
        files = len(list(root.glob("features/*/*/*.h5")))
        assert work(root) == 24 - WINDOW * files
        assert row_bytes(root) == row_bytes(tmp_path / "whole")
        assert not list(root.rglob(".tmp-*"))
