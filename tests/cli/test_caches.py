"""``mmsa cache``, ``--variants N`` and free pairing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from PIL import Image

from mmsa_cache.cli.output import format_duration
from mmsa_cache.cli.verb import Call, verb
from mmsa_cache.compose.cache.caches import existing_caches
from mmsa_cache.compose.cache.show import show
from mmsa_cache.compose.cache.verify import raise_damaged, verify
from mmsa_cache.compose.session.samples import classes_of
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.splits import copies_per_class
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.errors import DamagedCacheError, DataError, DeviceError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.runs.directory import CHECKPOINT, new_run
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.store.index import INDEX
from tests.support.caches import (
    keys_of,
    make_store,
    only,
    settings_of,
    shard,
    table,
    write_table,
)
from tests.support.shards import ENCODER, make_keys, writer_of
from tests.support.small_work import mmsa


def test_features_are_listed_with_their_state(tmp_path: Path) -> None:
    folder, keys = make_store(tmp_path / "whole"), keys_of(table())
    whole = only(tmp_path / "whole")
    assert (whole.directory, whole.modality, whole.encoder) == (folder, "text", "tiny")
    assert (whole.rows, whole.shards, whole.unused, whole.problem) == (5, 1, 0, "")
    assert whole.complete == {"train": 1.0}
    assert whole.bytes == sum(p.stat().st_size for p in folder.iterdir())
    write_table(tmp_path / "whole", table([None] * 6), "test")
    assert only(tmp_path / "whole").complete == {"train": 1.0, "test": 0.5}

    make_store(tmp_path / "half", np.concatenate([keys[:2], make_keys(0, 3)]))
    half = only(tmp_path / "half")
    assert (half.rows, half.complete, half.unused) == (5, {"train": 0.4}, 3)

    torn = make_store(tmp_path / "torn")
    with (torn / INDEX).open("a") as file:
        file.write("{}\n")
    assert f"{torn / INDEX}:2" in only(tmp_path / "torn").problem
    assert only(tmp_path / "torn").complete == {}

    old = time.time() - 3 * 86400
    for path in folder.iterdir():
        os.utime(path, (old, old))
    assert only(tmp_path / "whole").age_days == pytest.approx(3, abs=0.01)


def test_rows_are_shown_with_their_norms(tmp_path: Path) -> None:
    make_store(tmp_path / "cache")
    shown = show(settings_of(tmp_path / "cache"), "b", "train")
    assert (shown.text, shown.tag, shown.image, shown.thumbnail) == (
        "text 1",
        "neutral",
        None,
        None,
    )
    (cached,) = shown.caches
    rows = cached.rows
    assert [row.variant for row in rows] == [0, 1, 2]
    assert [row.operation for row in rows] == ["", "rotation", "rotation"]
    assert [row.positions for row in rows] == [2, 4, 5]
    assert rows[0].token_norm == 2.0
    assert rows[0].pool_norms == {"mean": 5.0}
    assert len(show(settings_of(tmp_path / "cache"), "c", "train").caches[0].rows) == 1
    with pytest.raises(DataError, match="has no sample 'z'"):
        show(settings_of(tmp_path / "cache"), "z", "train")


def test_unused_rows_alone_are_pruned(tmp_path: Path) -> None:
    keys = np.concatenate([keys_of(table()), make_keys(0, 4)])
    make_store(tmp_path / "cache", keys)
    prune = ("cache", "prune", "--unused", "--json")
    (said,) = json.loads(mmsa(tmp_path, *prune).stdout)
    assert said["state"] == "4 rows would be removed"
    assert only(tmp_path / "cache").rows == 9
    (done,) = json.loads(mmsa(tmp_path, *prune, "--yes").stdout)
    assert done["state"] == "4 rows removed"
    assert done["bytes"] > 0
    left = only(tmp_path / "cache")
    assert (left.rows, left.unused, left.complete) == (5, 0, {"train": 1.0})
    assert json.loads(mmsa(tmp_path, *prune, "--yes").stdout) == []

    shutil.rmtree(tmp_path / "cache/data")  # nobody says what is used: nothing may go
    failed = mmsa(tmp_path, *prune, "--yes", code=4)
    assert "does not say which rows its splits need" in failed.stderr
    assert only(tmp_path / "cache").rows == 5


def test_features_are_pruned_by_any_condition(tmp_path: Path) -> None:
    make_store(tmp_path / "cache", keys_of(table())[:3])
    prune = ("cache", "prune", "--json")
    for flags, gone in (
        (("--encoder", "other"), 0),
        (("--encoder", "tiny"), 1),
        (("--older-than", "1"), 0),
        (("--unfinished",), 1),
        (("--unfinished", "--encoder", "other"), 0),
    ):
        assert len(json.loads(mmsa(tmp_path, *prune, *flags).stdout)) == gone, flags
    writer = writer_of(tmp_path / "cache")
    with writer.claim(lambda: None):
        writer.publish(shard(keys_of(table())[3:]))
    assert json.loads(mmsa(tmp_path, *prune, "--unfinished").stdout) == []
    size = sum(path.stat().st_size for path in ENCODER.folder(tmp_path / "cache").iterdir())
    (done,) = json.loads(mmsa(tmp_path, *prune, "--older-than", "0", "--yes").stdout)
    assert (done["bytes"], done["state"]) == (size, "removed")
    assert not ENCODER.folder(tmp_path / "cache").exists()


def test_a_cache_of_schema_1_is_refused_by_number(work: Path, tmp_path: Path) -> None:
    old = tmp_path / "cache/train/text/tiny-12345678"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text('{"schema": 1}')
    (old / "shard-00000.h5").write_bytes(b"old")
    (tmp_path / "mmsa.toml").write_text((work / "mmsa.toml").read_text())
    shutil.copytree(work / "posts", tmp_path / "posts")
    said = "cache/train/text/tiny-12345678 is a cache of schema 1, this program reads schema 2."
    for command in (("train",), ("search",), ("cache", "ls"), ("cache", "show", "3")):
        failed = mmsa(tmp_path, *command, code=4).stderr
        assert said in failed
        assert "Run mmsa extract" in failed
    mmsa(tmp_path, "extract", "--variants", "none")
    mmsa(tmp_path, "cache", "show", "3")
    removal = json.loads(mmsa(tmp_path, "cache", "prune", "--unused", "--yes", "--json").stdout)
    assert [(r["directory"], r["state"]) for r in removal] == [
        ("cache/train/text/tiny-12345678", "removed")
    ]
    assert not old.exists()
    assert {
        info.complete["train"] for info in existing_caches(settings_of(tmp_path / "cache"))
    } == {1.0}


def test_a_damaged_split_is_refused_and_extraction_writes_it_anew(
    work: Path, extracted: object, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(work / "cache", cache)
    path = split_path(cache, "test")
    _, samples = read_split(path)
    path.write_bytes(path.read_bytes()[:-9])
    flags = ("--cache", str(cache))
    assert str(path) in mmsa(work, "cache", "show", "125", "--split", "test", *flags, code=4).stderr
    again = mmsa(work, "extract", "--split", "test", *flags)
    assert f"Note: {path}: " in again.stderr
    assert again.stderr.count("nothing to do") == 2
    assert read_split(path)[1] == samples


def test_the_verbs(work: Path, extracted: object, tmp_path: Path) -> None:
    records = json.loads(mmsa(work, "cache", "ls", "--json").stdout)
    assert [(r["modality"], r["complete"], r["unused"]) for r in records] == [
        (modality, {"train": 1.0, "test": 1.0}, 0) for modality in ("image", "text")
    ]
    assert "train 100 %, test 100 %" in mmsa(work, "cache", "ls").stdout
    assert "as sealed" in mmsa(work, "cache", "verify").stdout
    shown = json.loads(mmsa(work, "cache", "show", "3", "--json").stdout)
    assert shown["text"] == (work / "posts/pairs/3.txt").read_text()
    assert Path(work / shown["thumbnail"]).read_bytes().startswith(b"\xff\xd8\xff")
    assert {c["modality"] for c in shown["caches"]} == {"text", "image"}
    assert all(c["rows"][0]["variant"] == 0 for c in shown["caches"])
    assert "positions" in mmsa(work, "cache", "show", "3").stdout
    failed = mmsa(work, "cache", "show", "30000", code=3)
    assert "has no sample '30000'" in failed.stderr
    assert "does not know what to remove" in mmsa(work, "cache", "prune", code=2).stderr

    cache = ("--cache", str(tmp_path / "c"))
    mmsa(work, "extract", "--tokens", "none", "--split", "test", *cache)
    mmsa(work, "extract", "--tokens", "keep", "--split", "test", *cache)
    arguments = ("cache", "prune", "--stale", "--json", *cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_EXTRACT_TOKENS", "keep")
        said = json.loads(mmsa(work, *arguments).stdout)
        assert [r["state"] for r in said] == ["would be removed"] * 2
        assert len(existing_caches(settings_of(tmp_path / "c"))) == 4
        done = json.loads(mmsa(work, *arguments, "--yes").stdout)
    assert [r["directory"] for r in done] == [r["directory"] for r in said]
    assert len(existing_caches(settings_of(tmp_path / "c"))) == 2
    second = mmsa(work, "extract", "--split", "test", *cache)
    assert second.stderr.count("nothing to do") == 2


def test_copies_follow_the_setting() -> None:
    labels = np.array([0] * 12 + [1] * 3 + [2] * 5 + [-1])

    def copies(value: object, split: str = "train") -> dict[int, int]:
        return copies_per_class(
            load_settings({"extract.variants": value}, environ={}).extract.variants, split, labels
        )

    assert copies("report") == {0: 0, 1: 3, 2: 2}  # target int(20 · 1.5) // 3 = 10
    assert copies("2") == copies(2) == {0: 2, 1: 2, 2: 2}
    assert copies("none") == copies("2", "test") == {}
    for wrong in ("three", "0", -1, 1.5, True):
        with pytest.raises(SettingsError, match=r"1 setting\(s\) cannot be used") as caught:
            copies(wrong)
        assert "write report, none, or a number of copies from 1" in caught.value.problems[0]


def test_free_pairing_draws_every_pair_of_the_same_sample() -> None:
    # Rows: three originals, two copies of b, two of c.
    rows, of_samples = shard(make_keys(0, 7)), np.array([[0, -1, -1], [1, 3, 4], [2, 5, 6]])
    text, image = (ModalityFeatures([rows], name, table=of_samples) for name in ("text", "image"))
    bank = FeatureBank(text, image, ["a", "b", "c"], [0, 1, 2])
    items = bank.items([0, 1, 2], variants=True)
    assert len(items) == 7
    draws = torch.Generator().manual_seed(0)
    found: Counter[tuple[int, ...]] = Counter()
    for _ in range(500):
        paired = bank.paired_freely(items, draws)
        assert torch.equal(paired[:, 0], items[:, 0])
        assert torch.equal(paired[:3], items[:3])  # the originals
        found.update(tuple(row) for row in paired[3:].tolist())
    of = {1: [1, 3, 4], 2: [2, 5, 6]}  # rows of "b" and of "c"
    expected = {
        (sample, text, image)
        for sample, own in of.items()
        for text, image in itertools.product(own, own)
    }
    assert set(found) == expected
    # 1,000 draws a sample over 9 pairs: within five deviations of a ninth
    spread = 5 * np.sqrt(1000 * (1 / 9) * (8 / 9))
    assert all(abs(count - 1000 / 9) < spread for count in found.values())
    again = bank.paired_freely(items, torch.Generator().manual_seed(0))
    assert torch.equal(again, bank.paired_freely(items, torch.Generator().manual_seed(0)))


EMOTIONS = ("anger", "calm", "fear", "joy", "sorrow")


def test_five_classes_of_a_table_go_the_whole_way(work: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["text,image,label"]
    for i in range(100):
        emotion = EMOTIONS[i % 5]
        picture = f"pictures/{i}.png"
        (tmp_path / "posts/pictures").mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 50, (24, 24, 3)) + 40 * (i % 5)
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "posts" / picture)
        lines.append(f"good day {'sun ' * (i % 5)}{i},{picture},{emotion}")
    (tmp_path / "posts/train.csv").write_text("\n".join(lines[:81]) + "\n")
    (tmp_path / "posts/test.csv").write_text("\n".join([lines[0], *lines[81:]]) + "\n")
    (tmp_path / "answers.csv").write_text(
        "guid,tag\n" + "".join(f"{i},{EMOTIONS[i % 5]}\n" for i in range(80, 100))
    )
    settings = (work / "mmsa.toml").read_text()
    (tmp_path / "mmsa.toml").write_text(settings)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/quick.toml").write_text((work / "studies/quick.toml").read_text())
    mmsa(tmp_path, "extract", "--split", "all")
    mmsa(tmp_path, "search", "--study", "quick", "--trials", "1")
    mmsa(tmp_path, "train", "--study", "quick", "--name", "r", "--folds", "2")
    config = json.loads((tmp_path / "runs/r/config.json").read_text())
    assert config["classes"] == config["settings"]["data"]["classes"] == list(EMOTIONS)
    predicted = json.loads(
        mmsa(tmp_path, "predict", "--run", "r", "--split", "test", "--json").stdout
    )
    assert {row["guid"] for row in predicted} == {str(i) for i in range(80, 100)}
    assert all(tuple(row["probabilities"]) == EMOTIONS for row in predicted)
    scored = json.loads(
        mmsa(tmp_path, "evaluate", "--run", "r", "--labels", "answers.csv", "--json").stdout
    )
    assert set(scored["per_class"]) == set(EMOTIONS)
    report = (tmp_path / "runs/r/report.html").read_text()
    assert all(emotion in report for emotion in EMOTIONS)


def test_class_names_come_from_the_setting_or_the_table(tmp_path: Path) -> None:
    def classes(labels: str, **flags: object) -> tuple[str, ...]:
        rows = "".join(f"t,{i}.png,{label}\n" for i, label in enumerate(labels.split()))
        (tmp_path / "train.csv").write_text("text,image,label\n" + rows)
        return classes_of(load_settings({"data.root": tmp_path, **flags}, environ={}))

    assert classes("spring autumn spring") == ("autumn", "spring")
    assert classes("negative positive") == ("positive", "negative")  # those that occur
    assert classes("negative Positive") == ("positive", "negative")
    # a mistyped sentiment stays a mistake, which reading names with its line
    assert classes("Positive neutral bad") == ("positive", "neutral", "negative")
    assert classes("spring spring", **{"data.classes": "b,a"}) == ("b", "a")
    for wrong in ("one", ["a", "a"], ["a", "null"], [" a", "b"], ["a\tb", "c"], 3):
        with pytest.raises(SettingsError, match="cannot be used") as caught:
            classes("a b", **{"data.classes": wrong})
        assert "two or more distinct names" in caught.value.problems[0]


def test_a_name_that_is_taken_meanwhile_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, taken: bool = False) -> None:
        with new_run(name, {"what": 1}) as (_, folder):
            (folder / CHECKPOINT).mkdir(exist_ok=True)
            (folder / CHECKPOINT / "member").write_text("trained")
            if taken:
                (tmp_path / "runs/r").mkdir()
                (tmp_path / "runs/r/config.json").write_text("{}")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"runs/r exists by now\.\n.*another --name"):
        train("r", taken=True)
    assert [p.name for p in (tmp_path / "runs/r").iterdir()] == ["config.json"]
    assert len(list((tmp_path / "runs").glob(".unfinished-*/checkpoint/member"))) == 1
    train("s")
    assert (tmp_path / "runs/s").is_dir()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "runs/x"), "runs/x: No space left on device"),
        (OSError("odd"), "odd"),
        (MemoryError(), "There is not enough memory."),
    ],
)
def test_what_the_system_refuses_is_a_message(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @verb()
    def refused(call: Call) -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        refused(as_json=False, debug=False, quiet=False)
    assert ended.value.exit_code == 5
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    with pytest.raises(type(error)):
        refused(as_json=False, debug=True, quiet=False)


def test_an_interrupt_within_a_finalizer_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    @verb()
    def dies(call: Call) -> None:
        Dying()
        time.sleep(20)

    hook, started = sys.unraisablehook, time.monotonic()
    with pytest.raises(typer.Exit) as ended:
        dies(as_json=False, debug=False, quiet=False)
    assert ended.value.exit_code == 130
    assert time.monotonic() - started < 15
    assert sys.unraisablehook is hook
    assert "Traceback" not in capsys.readouterr().err


def test_no_memory_on_a_device_ends_a_verb_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    errors = (
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2.00 GiB."), "CUDA out of memory."),
        (torch.AcceleratorError("CUDA error: illegal access\nCompile with"), "illegal access\n"),
        (RuntimeError("can't start new thread"), "No memory: can't start new thread"),
    )
    for error, said in errors:

        @verb()
        def fails(call: Call, error: Exception = error) -> None:
            raise error

        with pytest.raises(typer.Exit) as ended:
            fails(as_json=False, debug=False, quiet=False, error=error)
        assert ended.value.exit_code == 5
        assert said in capsys.readouterr().err

    @verb()
    def wrong(call: Call) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        wrong(as_json=False, debug=False, quiet=False)


def test_the_latest_run_is_the_last_trained_when_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("bac"):
        with new_run(name, {"what": number}) as (_, folder):
            (folder / "config.json").write_text("{}")
        assert RunFolder.find("latest").name == name
        ahead = time.time() + 90_000 * (number + 1)
        os.utime(f"runs/{name}/config.json", (ahead, ahead))
    assert format_duration(time.time() - RunFolder.find("c").trained_at()) == "0 s"


def test_a_run_is_whole_or_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended_by(error: BaseException, kept: bool = False) -> None:
        with new_run("r", {"what": 1}) as (_, folder):
            (folder / "half").write_text("x")
            if kept:
                (folder / CHECKPOINT).mkdir()
            raise error

    def shown() -> list[str]:
        return [p.name for p in (tmp_path / "runs").iterdir() if not p.name.startswith(".")]

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="boom"):
        ended_by(ValueError("boom"))
    assert not list((tmp_path / "runs").glob(".unfinished-*/")), "nothing was kept to go on from"
    with new_run("r", {"what": 2}) as (_, folder):
        assert list(folder.iterdir()) == []
        with (
            pytest.raises(SettingsError, match="trained by another process"),
            new_run("s", {"what": 2}),
        ):
            pass
        (folder / "whole").write_text("x")
    assert [p.name for p in (tmp_path / "runs/r").iterdir()] == ["whole"]
    with pytest.raises(SettingsError, match="exists already"), new_run("r", {"what": 2}):
        pass
    (tmp_path / "runs/r").rename(tmp_path / "runs/q")
    with pytest.raises(KeyboardInterrupt):
        ended_by(KeyboardInterrupt(), kept=True)
    assert shown() == ["q"], "what is unfinished is not to be taken for a run"
    with new_run("t", {"what": 1}) as (_, folder):
        assert (folder / CHECKPOINT).is_dir(), "the same goes on, whatever its name"
    assert sorted(shown()) == ["q", "t"]
    assert not (tmp_path / "runs/t" / CHECKPOINT).exists()


def test_verify_rehashes_every_shard_and_every_split(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    folder = make_store(root, keys_of(table())[:3])
    writer = writer_of(root)
    with writer.claim(lambda: None):
        writer.publish(shard(keys_of(table())[3:]))
    found = verify(settings_of(root))
    assert [(item.cache, item.problems) for item in found] == [
        (str(folder), []),
        (str(split_path(root, "train")), []),
    ]
    raise_damaged(found)
    for path in (*folder.glob("*.h5"), split_path(root, "train")):
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
    with pytest.raises(DamagedCacheError) as caught:
        raise_damaged(verify(settings_of(root)))
    problems = caught.value.problems
    assert len(problems) == 3
    for path in (*folder.glob("*.h5"), split_path(root, "train")):
        assert sum(str(path) in line for line in problems) == 1


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("open_regular", OSError(errno.ENOMEM, "Cannot allocate memory")),
        ("_decode_columns", pa.ArrowMemoryError("malloc of size 64 failed")),
    ],
)
def test_a_split_that_no_memory_is_left_for_is_not_called_damaged(
    tmp_path: Path, place: str, error: Exception
) -> None:
    make_store(tmp_path / "cache", keys_of(table()))
    with (
        mock.patch(f"mmsa_cache.data.stored_split.{place}", side_effect=error),
        pytest.raises(DeviceError, match=re.escape(str(error.args[-1]))),
    ):
        verify(settings_of(tmp_path / "cache"))
