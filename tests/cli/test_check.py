"""``mmsa check`` on what repeats, its page, and what becomes of rows that were set aside."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract import publisher
from extract.inputs import decode as decoding
from extract.inputs.strict import Strict
from mmsa_cache.compose.check import check as verb_check
from mmsa_cache.compose.check.format import format_check
from mmsa_cache.compose.extraction import bad_rows
from mmsa_cache.compose.extraction.bad_rows import MAX_LISTED
from mmsa_cache.compose.session.samples import read_data
from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.duplicates import group_by_key, near_groups, perceptual_hash
from mmsa_cache.data.pairs import BadRow, Fault
from mmsa_cache.data.set_aside import (
    SetAside,
    count_reasons,
    read_set_aside,
    set_aside_path,
    write_set_aside,
)
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import MOST_SHOWN, DamagedCacheError, DataError, SettingsError
from mmsa_cache.store.listing import list_features
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.data_folders import features, label_file, make_data, mmsa, noise, saved, sealed
from tests.support.real_data import REAL, needs_real


@pytest.fixture(scope="module")
def work(tiny_work: Path) -> Path:
    return tiny_work


TRUNCATED = saved(noise(9, 300, 200))[:900]


# --- what repeats -------------------------------------------------------------------------------


def test_groups_are_in_order_of_first_appearance() -> None:
    assert group_by_key(["b", "a", None, "a", "b", "c", None, "a"]) == [[0, 4], [1, 3, 7]]
    assert group_by_key([]) == []


@pytest.mark.parametrize("distance", [0, 1, 6])
def test_near_hashes_are_those_of_a_full_comparison(distance: int) -> None:
    rng = np.random.default_rng(distance)
    seeds = rng.integers(0, 1 << 64, 150, np.uint64).tolist()
    looks: list[int | None] = [*seeds, None]
    for seed in seeds[:60]:  # neighbours at every distance around the limit
        for bit in rng.permutation(64)[: rng.integers(0, distance + 3)].tolist():
            seed ^= 1 << bit
        looks.append(seed)
    places = [place for place, look in enumerate(looks) if look is not None]
    root = {place: place for place in places}

    def top(place: int) -> int:
        return place if root[place] == place else top(root[place])

    for i in places:
        for j in places:
            if ((looks[i] or 0) ^ (looks[j] or 0)).bit_count() <= distance:
                root[top(max(i, j))] = top(min(i, j))
    expected = group_by_key(None if look is None else top(i) for i, look in enumerate(looks))
    assert near_groups(looks, distance) == expected
    assert expected
    assert near_groups([], distance) == near_groups([None, 5], distance) == []


def test_pictures_look_alike_up_to_six_bits_and_flat_ones_like_nothing() -> None:
    assert near_groups([0, 0b111111, 0b111111 << 58]) == [[0, 1, 2]]
    assert near_groups([0, 0b1111111, 0b1111111 << 57]) == []
    for contrast, flat in ((7, True), (8, False)):  # deviations of 3.5 and 4 grey values
        stripes = np.full((64, 64, 3), 100, np.uint8)
        stripes[np.arange(64) // 4 % 2 == 0] += np.uint8(contrast)
        for picture in (stripes, stripes.transpose(1, 0, 2)):
            assert (perceptual_hash(picture) is None) == flat
    assert perceptual_hash(np.full((30, 30, 3), (250, 20, 90), np.uint8)) is None


def test_hashes_that_agree_on_one_band_alone_are_found_and_few_others_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 3,000 pictures, 4.5 million pairs, some 20 to 30 a picture are looked at."""
    rng = np.random.default_rng(3)
    edges = np.linspace(0, 64, 8).astype(int)
    others = [
        sum(1 << int(rng.integers(edges[i], edges[i + 1])) for i in range(7) if i != alone)
        for alone in range(7)
    ]
    looks = rng.integers(0, 1 << 64, 1500, np.uint64).tolist()
    looks += [look ^ others[place % 7] for place, look in enumerate(looks)]
    compared = 0
    count = np.bitwise_count

    def counted(bits: Any) -> Any:
        nonlocal compared
        compared += bits.size
        return count(bits)

    monkeypatch.setattr(np, "bitwise_count", counted)
    assert near_groups(looks, 6) == [[place, place + 1500] for place in range(1500)]
    assert compared < 200_000


def test_a_picture_looks_like_itself_recompressed_and_unlike_others() -> None:
    def look(image: Any, **how: Any) -> int:
        found = perceptual_hash(decoding.decode(saved(image, **how), "x"))
        assert found is not None
        return found

    first = noise(1, 400, 300)
    same = look(first, quality=95) ^ look(first.resize((200, 150)), quality=40)
    assert same.bit_count() <= 6
    assert (look(first) ^ look(noise(2, 400, 300))).bit_count() > 6
    assert perceptual_hash(np.full((30, 30, 3), 200, np.uint8)) is None


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """Train rows a to f, test rows x and y; which of them repeat stands beside each."""
    root = tmp_path / "posts"
    (root / "pairs").mkdir(parents=True)
    posts = {
        "a": ("so good", 1),
        "b": ("so good", 2),  # the text of a, another label
        "c": ("RT @you: SO good http://t.co/1", 3),  # the same without RT and URL
        "d": ("sea", 4),
        "e": ("rain", 4),  # the picture of d
        "f": ("http://t.co/2", 5),  # a URL is no text
        "x": ("so good", 6),  # leaks
        "y": ("http://t.co/3", 7),
    }
    for guid, (words, seed) in posts.items():
        (root / "pairs" / f"{guid}.txt").write_text(words)
        (root / "pairs" / f"{guid}.jpg").write_bytes(saved(noise(seed, 200, 150)))
    (root / "pairs/y.jpg").write_bytes(saved(noise(5, 200, 150), quality=60))  # looks like f's
    tags = zip("abcdef", ["positive", "neutral", *["positive"] * 3, "negative"], strict=True)
    (root / "train.txt").write_text("guid,tag\n" + "".join(f"{g},{t}\n" for g, t in tags))
    (root / "test.txt").write_text("guid,tag\nx,null\ny,null\n")
    return root


def test_what_repeats_is_counted(repeating: Path, tmp_path: Path) -> None:
    record = json.loads(mmsa(tmp_path, "check", str(repeating), "--json").stdout)
    assert record["ok"]
    counts = {
        kind["what"]: (
            kind["groups"],
            kind["rows"],
            kind["contradicting"],
            kind["test_rows_in_train"],
        )
        for kind in record["repeated"]
    }
    assert counts == {
        "text": (1, 3, 1, 1),
        "text without RT and URLs": (1, 4, 1, 1),
        "picture": (1, 2, 0, 0),
        "picture that looks alike": (1, 2, 0, 1),
    }
    assert [[m["guid"] for m in group] for group in record["repeated"][1]["members"]] == [
        ["a", "b", "c", "x"]
    ]
    assert record["splits"] == [
        {
            "split": "train",
            "rows": 6,
            "bad": 0,
            "labels": {"positive": 4, "neutral": 1, "negative": 1},
        },
        {"split": "test", "rows": 2, "bad": 0, "labels": {"null": 2}},
    ]
    assert "missing" in record["texts"]["tokens"]  # bert-base-uncased is not on this machine
    shown = mmsa(tmp_path, "check", str(repeating)).stdout
    assert "Nothing is bad." in shown
    assert re.search(r"text without RT and URLs +1 +4 +1 +1\n", shown)
    assert re.search(r"train +6 +0 +4 \(66.7%\)", shown)


@pytest.mark.faults
@needs_real
def test_the_figures_of_the_real_data() -> None:
    settings = load_settings(
        {"data.root": REAL, "data.encoding": "gb18030", "text.model": "nowhere"}, environ={}
    )
    record = verb_check.check(settings).as_json()
    assert record["ok"]
    assert record["texts"]["valid_as"] == {"ascii": 3448, "utf-8": 3450, "gb18030": 4511}
    text, _, picture, _ = (
        (k["groups"], k["rows"], k["contradicting"], k["test_rows_in_train"])
        for k in record["repeated"]
    )
    assert text == (154, 342, 34, 40)
    assert picture[:2] == (40, 82)


# --- the command --------------------------------------------------------------------------------


def test_mistakes_of_the_user(tmp_path: Path, work: Path) -> None:
    assert "No data folder is set" in mmsa(tmp_path, "check", code=2).stderr
    twice = ("check", "x", "--data", "y")
    assert "given twice" in mmsa(tmp_path, *twice, code=2).stderr
    gone = json.loads(mmsa(tmp_path, "check", "gone", "--json", code=3).stdout)
    assert "There is no data folder gone. Give" in gone["problems"][0]["message"]
    odd = mmsa(work, "check", "all", "--encoding", "klingon", code=3)
    assert "Unknown text encoding 'klingon'. Try utf-8 or gb18030" in odd.stdout
    assert "no folder" in mmsa(work, "check", "all", "--html", "gone/p.html", code=2).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no label file" in mmsa(tmp_path, "check", "empty", code=3).stdout


def test_a_split_that_cannot_be_listed_does_not_hide_the_other(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    (root / "pairs/0.jpg").write_bytes(b"")
    (root / "test.txt").write_bytes(b"\xff")
    (root / "test2.txt").write_text("guid,tag\n")
    record = json.loads(mmsa(work, "check", str(root), "--json", code=3).stdout)
    assert [(p["split"], p["reason"]) for p in record["problems"]] == [
        ("test", "label file"),
        ("train", "empty file"),
    ]
    assert "several files test*.txt" in record["problems"][0]["message"]


def test_undecodable_bytes_that_are_replaced_are_counted(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    (root / "pairs/1.txt").write_bytes(b"caf\xe9 s\xe9a")
    settings = Settings.model_validate({"data": {"root": root, "encoding_errors": "replace"}})
    summary = verb_check.check(settings)
    assert summary.ok
    texts = summary.as_json()["texts"]
    assert (texts["undecodable_files"], texts["undecodable_places"]) == (1, 2)
    assert texts["undecodable"] == ["1"]
    assert "1 are not valid in the declared encoding, in 2 places: 1." in format_check(summary)
    summary = read_data(settings, "train", Store(tmp_path / "none"))[1].summary()
    assert summary.endswith("Bytes not valid in the encoding were replaced in 1: 1.")


def test_a_terminal_does_not_obey_the_data(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(work / "all", root)
    with (root / "train.txt").open("a") as file:
        file.write("\x1b[31mred,neutral\n")
    for verb in (("check", str(root)), extraction(root, tmp_path / "cache")):
        failed = mmsa(work, *verb, code=3)
        assert r"\x1b[31mred.txt: no such file" in failed.output
        assert "\x1b" not in failed.output


def test_long_lists_are_bounded(tmp_path: Path) -> None:
    error = DataError("Many.", "Mend.", [f"line {n}" for n in range(MOST_SHOWN + 7)])
    lines = str(error).splitlines()
    assert lines[-2:] == ["  … and 7 more", "  → Mend."]
    assert len(lines) == MOST_SHOWN + 3


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_the_page_shows_the_worst_and_lets_nothing_through(repeating: Path, tmp_path: Path) -> None:
    pairs, evil = repeating / "pairs", "<script>alert(1)</script>\x07"
    (pairs / "a.txt").write_text(evil)
    (pairs / "b.txt").write_text(evil)
    hostile = "g<img src=x onerror=alert(2)>"
    shutil.copy(pairs / "d.jpg", pairs / f"{hostile}.jpg")
    (pairs / "c.jpg").write_bytes(TRUNCATED)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(saved(noise(30, 200, 150)))
    (pairs / "e.jpg").unlink()
    (pairs / "e.jpg").symlink_to(secret)
    with (repeating / "train.txt").open("a") as file:
        file.write(f"{hostile},neutral\n")
    page = tmp_path / "page.html"
    mmsa(tmp_path, "check", str(repeating), "--html", str(page), code=3)
    content = page.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(content)
    names = {tag for tag, _ in tags.found}
    assert not names & {"script", "iframe", "object", "link", "base", "form"}
    attributes = [
        (tag, key, value or "") for tag, found in tags.found for key, value in found.items()
    ]
    assert not [a for a in attributes if a[1].startswith("on")]
    sources = [value for _, key, value in attributes if key == "src"]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(v.startswith("#") for tag, key, v in attributes if key == "href")
    assert all("alt" in found for tag, found in tags.found if tag == "img")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "\x07" not in content
    assert "prefers-color-scheme: dark" in content
    assert 'name="viewport"' in content
    for title in ("Bad rows", "Same post, other label", "Test rows with a twin in train"):
        assert title in content
    assert "c.jpg: cannot be decoded" in content
    bad = content.split('id="bad"')[1].split("</section>")[0]
    assert "leads out of the data folder" in bad
    assert bad.count("<img") == 1  # of the row without text; none of damaged or foreign files


# --- rows that are set aside --------------------------------------------------------------------


@pytest.fixture
def damaged(work: Path, tmp_path: Path) -> Path:
    """A copy of the data whose row ``odd`` has a truncated picture."""
    root = tmp_path / "damaged"
    shutil.copytree(work / "all", root)
    (root / "pairs/odd.jpg").write_bytes(TRUNCATED)
    return root


def extraction(root: Path, cache: Path, *flags: str) -> tuple[str, ...]:
    return ("extract", "--data", str(root), "--cache", str(cache), *flags)


def settings_of(root: Path, cache: Path) -> Settings:
    return Settings.model_validate({"data": {"root": root}, "cache": {"dir": cache}})


def taken_in(root: Path, cache: Path) -> tuple[SampleTable, SplitSummary]:
    return read_data(settings_of(root, cache), "train", Store(cache))


def test_too_many_bad_rows_end_it(work: Path, tmp_path: Path, damaged: Path) -> None:
    cache = tmp_path / "cache"
    (damaged / "pairs/1.txt").unlink()
    failed = mmsa(work, *extraction(damaged, cache, "--on-bad", "skip"), code=3)
    assert "2 of 7 rows of train are bad: 28.57%, and at most 15.00%" in failed.stderr
    assert "1.txt: no such file" in failed.stderr
    assert "odd.jpg: cannot be decoded" in failed.stderr
    assert not [path for path in cache.rglob("[!.]*") if path.is_file()]
    mmsa(work, *extraction(damaged, cache, "--on-bad", "skip", "--max-bad", "0.3"))
    assert len(read_set_aside(cache, "train").identities) == 2
    for share in ("1.5", "many%", "-1"):
        wrong = mmsa(work, *extraction(damaged, cache, "--max-bad", share), code=2)
        assert "extract.max_bad" in wrong.stderr


def test_bad_rows_of_all_splits_are_named_at_once(
    work: Path, tmp_path: Path, damaged: Path
) -> None:
    (damaged / "test.txt").write_text("guid,tag\n5,null\nodd2,null\n")
    (damaged / "pairs/0.txt").unlink()
    failed = mmsa(work, *extraction(damaged, tmp_path / "cache", "--split", "all"), code=3)
    for part in ("0.txt: no such file", "odd.jpg: cannot be", "odd2.txt: no such", "odd2: no pic"):
        assert part in failed.stderr


def test_an_interrupted_extraction_goes_on_without_trying_the_pictures_again(
    work: Path, tmp_path: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    skip = extraction(damaged, cache, "--on-bad", "skip")
    publish = FeatureWriter.publish

    def interrupted(writer: FeatureWriter, *shards: Shard) -> int:
        if writer.rows:
            raise KeyboardInterrupt
        return publish(writer, *shards)

    monkeypatch.setenv("MMSA_CACHE_SHARD_ROWS", "4")
    monkeypatch.setattr(publisher, "GATHERED_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "publish", interrupted)
        mmsa(work, *skip, code=130)
    assert [(found.modality, found.rows) for found in list_features(cache)] == [
        ("image", 0),
        ("text", 4),
    ]
    monkeypatch.setattr(
        bad_rows, "find_undecodable", None
    )  # would be called where nothing was noted
    resumed = mmsa(work, *skip)
    assert "4 of 6 rows are there." in resumed.stderr
    mmsa(work, *extraction(work / "without", tmp_path / "plain"))
    assert sealed(cache) == sealed(tmp_path / "plain")


def test_what_was_set_aside_stays_so_until_it_is_mended(
    work: Path, tmp_path: Path, damaged: Path
) -> None:
    cache = tmp_path / "cache"
    (damaged / "pairs/1.jpg").unlink()
    with pytest.raises(DataError, match="1: no picture"):
        taken_in(damaged, cache)
    mmsa(work, *extraction(damaged, cache, "--on-bad", "skip", "--max-bad", "30%"))
    found = read_set_aside(cache, "train").folders[str(damaged.resolve())]
    assert [(row.guid, row.line) for row in found.rows] == [("1", 3), ("odd", 5)]
    samples, report = taken_in(damaged, cache)
    assert [sample.guid for sample in samples] == ["0", "2", "3", "4", "5"]
    assert report.aside == 2
    assert report.summary().endswith("; 2 set aside (bad files).")

    # Without --on-bad skip it fails at once, before anything is encoded anew.
    failed = mmsa(work, *extraction(damaged, cache), code=3)
    assert "odd.jpg: cannot be decoded" in failed.stderr
    assert "rows," not in failed.stderr

    # A mended row counts again; one that is bad in another way is named.
    shutil.copy(work / "all/pairs/odd.jpg", damaged / "pairs/odd.jpg")
    assert "odd" in [sample.guid for sample in taken_in(damaged, cache)[0]]
    (damaged / "pairs/2.txt").unlink()
    with pytest.raises(DataError, match=r"2\.txt: no such file") as caught:
        taken_in(damaged, cache)
    assert len(caught.value.problems) == 1
    assert "--on-bad skip" in caught.value.hint


def test_data_folders_in_one_cache_keep_their_own_lists(
    work: Path, tmp_path: Path, damaged: Path
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    shutil.copytree(work / "all", other)
    (other / "pairs/2.txt").write_text("")
    skip = ("--on-bad", "skip")
    mmsa(work, *extraction(damaged, cache, *skip))
    mmsa(work, *extraction(other, cache, *skip))
    assert {Path(root).name for root in read_set_aside(cache, "train").folders} == {
        "damaged",
        "other",
    }
    for root, gone in ((damaged, "odd"), (other, "2")):
        guids = [sample.guid for sample in taken_in(root, cache)[0]]
        assert len(guids) == 6
        assert gone not in guids
    shutil.copy(work / "all/pairs/2.txt", other / "pairs/2.txt")
    mmsa(work, *extraction(other, cache, *skip))
    assert len(read_set_aside(cache, "train").identities) == 1
    assert features(cache).keys() >= {("text", "odd"), ("image", "odd")}  # of the other folder


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"schema": 2, "folders": {}}',
        b'{"schema": 1, "folders": {"x": {"checked": 1, "rows": []}}}',
        b'{"schema": 1, "folders": {"x": {"checked": "", "rows": [{"guid": ["a"]}]}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = set_aside_path(tmp_path, "train")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DamagedCacheError, match=r"set-aside.json cannot be read") as caught:
        read_set_aside(tmp_path, "train")
    assert caught.value.exit_code == 4


def test_a_record_reads_back(tmp_path: Path) -> None:
    rows = [BadRow("é", 4, (Fault("a", "b"), Fault("c", "d")), "", "ff")]
    path = write_set_aside(tmp_path, "train", Path("/data"), "cc", rows)
    assert read_set_aside(tmp_path, "train").folders == {"/data": SetAside("cc", tuple(rows))}
    assert count_reasons(rows) == {"a": 1, "c": 1}
    assert not list(path.parent.glob(".tmp*"))


def test_many_rows_set_aside_are_counted(work: Path, tmp_path: Path) -> None:
    root = make_data(tmp_path / "many", ["0", "1"])
    gone = [f"x{n}" for n in range(MAX_LISTED + 3)]
    (root / "train.txt").write_text(label_file(["0", "1", *gone]))
    flags = ("--on-bad", "skip", "--max-bad", "1")
    shown = mmsa(work, *extraction(root, tmp_path / "cache", *flags)).stderr
    assert f"{len(gone)} of {len(gone) + 2} rows set aside ({len(gone)} missing)" in shown
    assert "… and 3 more" in shown
    (root / "train.txt").write_text(label_file(gone))
    shutil.copy(root / "pairs/0.txt", root / "pairs/x0.txt")
    nothing = mmsa(work, *extraction(root, tmp_path / "cache", *flags), code=3)
    assert "No row of train is left." in nothing.stderr


def test_a_tables_empty_text_can_be_set_aside_or_allowed(work: Path, tmp_path: Path) -> None:
    root = tmp_path / "table"
    root.mkdir()
    lines = ["guid,text,image,label"]
    for n in range(7):
        (root / f"{n}.jpg").write_bytes(saved(noise(n)))
        lines.append(f"{n},{'sea' if n != 4 else ' '},{n}.jpg,neutral")
    (root / "train.csv").write_text("\n".join(lines))
    failed = mmsa(work, *extraction(root, tmp_path / "a"), code=3)
    assert "train.csv:6: empty text" in failed.stderr
    skipped = mmsa(work, *extraction(root, tmp_path / "a", "--on-bad", "skip"))
    assert "set aside (1 empty text)" in skipped.stderr
    mmsa(work, *extraction(root, tmp_path / "b", "--allow-empty-text"))
    assert ("text", "4") in features(tmp_path / "b")
    assert mmsa(work, "check", str(root), "--allow-empty-text").exit_code == 0


def test_stage_two_leaves_out_what_was_set_aside(work: Path, tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    (root / "pairs").mkdir(parents=True)
    tags = ["positive", "neutral", "negative"]
    guids = [f"g{n}" for n in range(45)]
    for n, guid in enumerate(guids):
        (root / "pairs" / f"{guid}.txt").write_text(f"good {n}")
        (root / "pairs" / f"{guid}.jpg").write_bytes(saved(noise(n)))
    rows = "".join(f"{guid},{tags[n % 3]}\n" for n, guid in enumerate(guids))
    (root / "train.txt").write_text("guid,tag\n" + rows)
    (root / "pairs/g7.jpg").write_bytes(TRUNCATED)
    (tmp_path / "mmsa.toml").write_text((work / "mmsa.toml").read_text())
    mmsa(tmp_path, *extraction(root, cache, "--on-bad", "skip"))
    data = ("--data", str(root), "--cache", str(cache))
    quick = ("--folds", "2", "--outer", "grouped", "--set", "epochs=1", "--set", "level=pooled")
    trained = mmsa(tmp_path, "train", *data, "--name", "r", *quick)
    assert "Note: 1 rows of train are left out, see" in trained.stderr
    predicted = mmsa(tmp_path, "predict", "--run", "r", "--split", "train", "--json")
    assert [p["guid"] for p in json.loads(predicted.stdout)] == [g for g in guids if g != "g7"]
    labels = ("--labels", str(root / "train.txt"), "--json")
    scored = mmsa(tmp_path, "evaluate", "--run", "r", *labels)
    assert json.loads(scored.stdout)["rows"] == 44
    assert "1 rows are not scored: they were set aside" in scored.stderr


# --- decoding -----------------------------------------------------------------------------------


def test_pillows_warnings_are_errors_while_any_thread_decodes() -> None:
    strict, before = Strict(), list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with strict:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with strict:
        leave.set()  # the first one leaves while this one is inside
        thread.join(10)
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before


def test_shares_are_numbers_or_per_cent() -> None:
    for given, expected in (("2%", 0.02), ("0.5", 0.5), (0, 0.0), ("100 %", 1.0)):
        assert load_settings({"extract.max_bad": given}, environ={}).extract.max_bad == expected
    with pytest.raises(SettingsError, match=r"extract.max_bad"):
        load_settings({"extract.max_bad": "101%"}, environ={})
