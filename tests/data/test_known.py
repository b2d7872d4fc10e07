"""Files that did not change are not opened again; what changed is seen, and said."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data import file_hashes, files
from mmsa_cache.data.file_hashes import NO_MARK, FileHashCache, file_mark
from mmsa_cache.data.row_changes import describe_changes
from mmsa_cache.data.scan import SplitScan, scan_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from tests.support.pictures import jpeg

ROWS = 20


def bmp(number: int) -> bytes:
    """A picture by its content; of one size whatever the number."""
    return b"BM" + number.to_bytes(60, "little")


class Opened:
    """Counts the files that are read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        read_plain = files.read_regular

        def counted(path: Path, limit: int) -> bytes:
            self.names.append(path.name)
            return read_plain(path, limit)

        patch.setattr(files, "read_regular", counted)

    def taken(self) -> list[str]:
        names, self.names = sorted(self.names), []
        return names


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "posts"
    (root / "pairs").mkdir(parents=True)
    for number in range(ROWS):
        (root / f"pairs/{number}.txt").write_text(f"post {number} http://t.co/{number}")
        (root / f"pairs/{number}.bmp").write_bytes(bmp(number))
    rows = [f"{number},{['positive', 'neutral', 'negative'][number % 3]}" for number in range(ROWS)]
    (root / "train.txt").write_text("guid,tag\n" + "\n".join(rows) + "\n")
    settle()
    return root


def settle() -> None:
    """Waits until what was written is older than the clock's tick."""
    time.sleep(file_hashes.CLOCK_TICK + 0.02)


def look(
    root: Path, stored: SampleTable | None = None, *, rehash: bool = False, **how: Any
) -> SplitScan:
    known = FileHashCache(root.parent / "cache", root, "train", stored, rehash=rehash)
    return scan_split(DataSettings(root=root, **how), "train", known)


def test_a_second_look_opens_nothing(root: Path, opened: Opened) -> None:
    first = look(root)
    assert len(opened.taken()) == 2 * ROWS
    again = look(root, first.samples)
    assert opened.taken() == []
    assert again.samples == first.samples == scan_split(DataSettings(root=root), "train").samples
    assert first.samples[3].text_sha256 == hashlib.sha256(b"post 3 http://t.co/3").hexdigest()
    assert first.samples[3].image_sha256 == hashlib.sha256(bmp(3)).hexdigest()
    assert first.samples[3].image_path == root / "pairs/3.bmp"


def test_without_the_stored_texts_texts_alone_are_read(root: Path, opened: Opened) -> None:
    first = look(root)
    opened.taken()
    for stored in (None, first.samples.without_texts(), first.samples[:0]):
        assert look(root, stored).samples == first.samples
        assert opened.taken() == sorted(f"{number}.txt" for number in range(ROWS))


def test_a_rehash_reads_everything_and_is_remembered(root: Path, opened: Opened) -> None:
    first = look(root)
    opened.taken()
    assert look(root, first.samples, rehash=True).samples == first.samples
    assert len(opened.taken()) == 2 * ROWS
    look(root, first.samples)
    assert opened.taken() == []


@pytest.mark.parametrize("name", ["7.txt", "7.bmp"])
def test_a_changed_byte_under_the_old_time_is_seen(root: Path, opened: Opened, name: str) -> None:
    first = look(root)
    opened.taken()
    path = root / "pairs" / name
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    settle()
    opened.taken()
    found = look(root, first.samples)
    assert opened.taken() == [name]
    what = "text" if name == "7.txt" else "picture"
    assert describe_changes(first.samples, found.samples) == [f"1 row with another {what}: 7"]
    look(root, found.samples)
    assert opened.taken() == []


def test_another_file_of_the_same_size_is_seen(root: Path, opened: Opened) -> None:
    first = look(root)
    opened.taken()
    (root / "pairs/8.bmp").rename(root / "pairs/7.bmp")
    shutil.copy2(root / "pairs/9.bmp", root / "pairs/8.bmp")
    settle()
    found = look(root, first.samples)
    assert opened.taken() == ["7.bmp", "8.bmp"]
    assert [found.samples[n].image_sha256 for n in (7, 8)] == [
        first.samples[n].image_sha256 for n in (8, 9)
    ]


def test_a_file_within_the_clocks_tick_is_read_again(root: Path, opened: Opened) -> None:
    first = look(root)
    opened.taken()
    (root / "pairs/5.bmp").write_bytes(bmp(500))
    found = look(root, first.samples)
    assert opened.taken() == ["5.bmp"]
    (root / "pairs/5.bmp").write_bytes(bmp(501))  # may have the time of the write before
    again = look(root, found.samples)
    assert opened.taken() == ["5.bmp"]
    assert again.samples[5].image_sha256 == hashlib.sha256(bmp(501)).hexdigest()


def test_the_mark_of_a_file_of_the_future_is_none(root: Path) -> None:
    path = root / "pairs/1.bmp"
    os.utime(path, (0, time.time() + 1000))
    settle()
    assert file_mark("1.bmp", path.stat(), time.time(), "image") == NO_MARK
    old = (root / "pairs/2.bmp").stat()
    marks = {file_mark(name, old, time.time(), use) for name in "ab" for use in ("image", "text")}
    assert len(marks) == 4
    assert NO_MARK not in marks


@pytest.mark.parametrize(
    "how",
    [
        {"encoding": "latin-1"},
        {"encoding_errors": "replace"},
        {"max_chars": 5},
        {"allow_empty_text": True},
    ],
)
def test_texts_are_read_again_where_they_are_read_otherwise(
    root: Path, opened: Opened, how: dict[str, Any]
) -> None:
    first = look(root)
    opened.taken()
    found = look(root, first.samples, **how)
    assert opened.taken() == sorted(f"{number}.txt" for number in range(ROWS))
    assert found.samples == scan_split(DataSettings(root=root, **how), "train").samples
    opened.taken()
    look(root, found.samples, **how)
    assert opened.taken() == []


def test_replaced_bytes_are_said_every_time(root: Path, opened: Opened) -> None:
    (root / "pairs/4.txt").write_bytes(b"caf\xe9 and a long rest")
    (root / "pairs/5.txt").write_text("a \ufffd of its own")
    settle()
    first = look(root, encoding_errors="replace", max_chars=3)
    opened.taken()
    found = look(root, first.samples, encoding_errors="replace", max_chars=3)
    assert opened.taken() == ["4.txt"]
    assert found.summarize(found.samples).replaced == ("4",)


def test_a_link_that_leads_out_is_refused_though_its_file_is_known(root: Path) -> None:
    first = look(root)
    outside = root.parent / "outside.bmp"
    (root / "pairs/3.bmp").rename(outside)
    (root / "pairs/3.bmp").symlink_to(outside)
    settle()
    with pytest.raises(DataError, match=r"3.bmp: leads out of the data folder"):
        look(root, first.samples)


def test_what_became_a_pipe_or_too_large_is_bad(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(root)
    (root / "pairs/3.bmp").unlink()
    os.mkfifo(root / "pairs/3.bmp")
    (root / "pairs/4.txt").unlink()
    found = look(root, first.samples)
    assert [row.messages for row in found.bad] == [
        ["3.bmp: not a regular file"],
        [f"4.txt: no such file in {root / 'pairs'}"],
    ]
    monkeypatch.setattr("mmsa_cache.data.reader.MAX_IMAGE_BYTES", 10)
    monkeypatch.setattr("mmsa_cache.data.pairs.MAX_IMAGE_BYTES", 10)
    assert len(look(root, first.samples).bad) == ROWS


def test_links_inside_the_folder_are_known_by_what_they_lead_to(root: Path, opened: Opened) -> None:
    (root / "pairs/3.bmp").unlink()
    (root / "pairs/3.bmp").symlink_to("4.bmp")
    settle()
    first = look(root)
    opened.taken()
    assert look(root, first.samples).samples == first.samples
    assert opened.taken() == []
    (root / "pairs/3.bmp").unlink()
    (root / "pairs/3.bmp").symlink_to("5.bmp")
    found = look(root, first.samples)
    assert opened.taken() == ["3.bmp"]
    assert found.samples[3].image_sha256 == first.samples[5].image_sha256


def test_a_broken_note_counts_as_none(root: Path, opened: Opened) -> None:
    first = look(root)
    (note,) = (root.parent / "cache/data").iterdir()
    assert note.name.startswith(".stats-train-")
    raw = note.read_bytes()
    assert len(raw) == 48 * (1 + 2 * ROWS)
    flipped = bytearray(raw)
    flipped[100] ^= 1
    opened.taken()
    for broken in (flipped, raw[:-1], raw[:-48], raw[:48], raw[:20], b"", raw + bytes(48)):
        note.write_bytes(broken)
        assert look(root, first.samples).samples == first.samples
        assert len(opened.taken()) == 2 * ROWS
        assert note.stat().st_size == len(raw)
    note.unlink()
    note.symlink_to("/dev/zero")
    assert look(root, first.samples).samples == first.samples


def test_the_mark_of_what_must_be_read_is_never_known(root: Path, opened: Opened) -> None:
    known = FileHashCache(root.parent / "cache", root, "train")
    known.path.parent.mkdir(parents=True)
    record = NO_MARK + bytes(32)
    known.path.write_bytes(file_hashes._MAGIC + hashlib.sha256(record).digest() + record)
    known = FileHashCache(root.parent / "cache", root, "train")
    assert len(known._records) == 1
    assert known.digests([NO_MARK]) == [None]
    known.note([NO_MARK], [bytes(32)])
    known.save()
    assert known.path.stat().st_size == 48  # only the head is left


def test_a_store_that_cannot_be_written_is_no_obstacle(root: Path, opened: Opened) -> None:
    (root.parent / "cache").write_text("a file")
    assert len(look(root).samples) == ROWS


def test_rows_that_come_and_go(root: Path, opened: Opened) -> None:
    first = look(root)
    labels = (root / "train.txt").read_text()
    (root / "pairs/new.txt").write_text("a new post")
    (root / "pairs/new.jpg").write_bytes(jpeg())
    settle()
    opened.taken()
    (root / "train.txt").write_text(labels.replace("3,positive\n", "") + "new,neutral\n")
    found = look(root, first.samples)
    assert opened.taken() == ["new.jpg", "new.txt"]
    assert describe_changes(first.samples, found.samples) == [
        "1 row added: new",
        "1 row removed: 3",
    ]
    assert (root.parent / "cache/data").is_dir()
    (note,) = (root.parent / "cache/data").iterdir()
    assert note.stat().st_size == 48 * (1 + 2 * ROWS)  # what is gone is forgotten


def test_tables_know_their_pictures(tmp_path: Path, opened: Opened) -> None:
    root = tmp_path / "posts"
    (root / "img/deep").mkdir(parents=True)
    (root / "img/1.bmp").write_bytes(bmp(1))
    (root / "img/deep/2.bmp").write_bytes(bmp(2))
    (root / "train.csv").write_text(
        "text,image,label\none,img/1.bmp,neutral\ntwo,img/../img/deep//2.bmp,positive\n"
    )
    settle()
    first = look(root)
    assert [name for name in opened.taken() if name.endswith(".bmp")] == ["1.bmp", "2.bmp"]
    assert look(root, first.samples).samples == first.samples
    assert [name for name in opened.taken() if name.endswith(".bmp")] == []
    assert first.samples.table["image"].to_pylist() == ["img/1.bmp", "img/deep/2.bmp"]


def test_half_a_surrogate_pair_is_a_bad_text(root: Path) -> None:
    (root / "pairs/1.txt").write_bytes(b"+2AA-")  # UTF-7
    found = look(root, encoding="utf-7", encoding_errors="replace")
    assert [row.messages for row in found.bad] == [["1.txt: holds half a surrogate pair"]]


def changed(table: SampleTable, row: int, **other: Any) -> SampleTable:
    samples = list(table)
    samples[row] = replace(samples[row], **other)
    return SampleTable.from_samples(samples, table.folder)


def test_differences_in_words(root: Path) -> None:
    table = look(root).samples
    other = hashlib.sha256(b"other").hexdigest()
    assert describe_changes(table, table) == []
    assert describe_changes(table, changed(table, 2, label=None)) == ["1 row relabelled: 2"]
    assert describe_changes(table, table[:10]) == ["10 rows removed: 10, 11, 12, 13, 14, …"]
    assert describe_changes(table[8:], table) == ["8 rows added: 0, 1, 2, 3, 4, …"]
    order = [*range(5), 7, 6, 5, *range(8, ROWS)]
    assert describe_changes(table, table.take(order)) == ["the rows are in another order from 6 on"]
    found = changed(changed(table, 9, text_sha256=other), 11, image_sha256=other)
    assert describe_changes(table, changed(found, 0, guid="x").take([0, *range(19, 0, -1)])) == [
        "1 row added: x",
        "1 row removed: 0",
        "1 row with another text: 9",
        "1 row with another picture: 11",
        "the rows are in another order from 18 on",
    ]
