"""``mmsa cache``, ``--variants N`` and free pairing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from filelock import FileLock
from PIL import Image

from mmsa_cache.cli.verb import Call, verb
from mmsa_cache.compose.cached import copies_of
from mmsa_cache.compose.caches import raise_damaged, verify
from mmsa_cache.compose.samples import classes_of
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DamagedCacheError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.runs.directory import CHECKPOINT, new_run
from mmsa_cache.store.listing import list_caches, remove_caches, rows_of
from mmsa_cache.store.manifest import MANIFEST, RECEIPT, lock_path
from mmsa_cache.store.reader import open_shards
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import CacheWriter
from tests.support.small_work import mmsa

ROWS = [("a", 0), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]


def shard(rows: list[tuple[str, int]]) -> Shard:
    """Row i has i + 1 positions, all ones in four dimensions."""
    lengths = [i + 1 for i in range(len(rows))]
    return Shard(
        [guid for guid, _ in rows],
        np.array([variant for _, variant in rows], np.int32),
        ["rotation" if variant else "" for _, variant in rows],
        np.cumsum([0, *lengths]).astype(np.int64),
        np.ones((sum(lengths), 4), np.float16),
        np.array([[[3.0, 4.0, 0, 0]]] * len(rows), np.float16),
        ("mean",),
    )


def make_cache(folder: Path, *, rows: int = len(ROWS), encoder: str = "tiny") -> Path:
    fields = {"encoder": encoder, "weights": "random:1", "of": folder.name}
    writer = CacheWriter(folder, fields, rows)
    with writer.lock(lambda: None):
        writer.publish(shard(ROWS))
        if rows == len(ROWS):
            writer.finish()
    return folder


def test_caches_are_listed_with_their_state(tmp_path: Path) -> None:
    make_cache(tmp_path / "train/text/one")
    make_cache(tmp_path / "train/image/half", rows=9)
    (make_cache(tmp_path / "train/image/torn") / "shard-00000.h5").write_bytes(b"no")
    found = {info.directory.name: info for info in list_caches(tmp_path)}
    one, half, torn = found["one"], found["half"], found["torn"]
    assert (one.split, one.modality, one.encoder) == ("train", "text", "tiny (random weights)")
    assert (one.rows, one.rows_wanted, one.variants, one.complete) == (5, 5, 2, True)
    assert one.operations == {"rotation": 2}
    assert one.bytes == sum(p.stat().st_size for p in one.directory.iterdir())
    assert (half.rows, half.rows_wanted, half.complete, half.problem) == (5, 9, False, "")
    assert not torn.complete
    assert "shard-00000.h5" in torn.problem
    old = time.time() - 3 * 86400
    for path in one.directory.iterdir():
        os.utime(path, (old, old))
    again = next(c for c in list_caches(tmp_path) if c.directory == one.directory)
    assert again.age_days == pytest.approx(3, abs=0.01)


def test_rows_are_shown_with_their_norms(tmp_path: Path) -> None:
    make_cache(tmp_path / "train/text/one")
    rows = rows_of(list_caches(tmp_path)[0], "b")
    assert [row.variant for row in rows] == [0, 1, 2]
    assert [row.operation for row in rows] == ["", "rotation", "rotation"]
    assert [row.positions for row in rows] == [2, 3, 4]
    assert rows[0].token_norm == 2.0
    assert rows[0].pool_norms == {"mean": 5.0}
    assert rows_of(list_caches(tmp_path)[0], "z") == []


def test_removing_spares_what_is_in_use_and_what_lies_elsewhere(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "cache/train/text/one")
    outside = tmp_path / "precious.h5"
    outside.write_text("precious")
    (folder / "shard-00009.h5").symlink_to(outside)
    found = list_caches(tmp_path / "cache")
    assert [r.state for r in remove_caches(found, really=False)] == ["would be removed"]
    assert (folder / MANIFEST).is_file()
    with FileLock(lock_path(folder)):
        assert [r.state for r in remove_caches(found, really=True)] == ["in use"]
    assert (folder / MANIFEST).is_file()
    removed = remove_caches(found, really=True)
    assert [(r.state, r.bytes) for r in removed] == [("removed", found[0].bytes)]
    assert not folder.exists()
    assert outside.read_text() == "precious"


def test_an_interrupted_removal_leaves_an_unfinished_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_cache(tmp_path / "train/text/one")
    unlink = Path.unlink

    def stop(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("shard"):
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        remove_caches(list_caches(tmp_path), really=True)
    monkeypatch.undo()
    assert [(c.complete, c.problem != "") for c in list_caches(tmp_path)] == [(False, True)]
    make_cache(folder)  # the next extraction begins anew
    assert [s.guids for s in open_shards(folder)] == [[guid for guid, _ in ROWS]]


def test_the_verbs(work: Path, extracted: object, tmp_path: Path) -> None:
    records = json.loads(mmsa(work, "cache", "ls", "--json").stdout)
    assert {(r["split"], r["modality"], r["complete"]) for r in records} >= {
        (split, modality, True) for split in ("train", "test") for modality in ("text", "image")
    }
    assert "complete" in mmsa(work, "cache", "ls").stdout
    shown = json.loads(mmsa(work, "cache", "show", "3", "--json").stdout)
    assert shown["text"] == (work / "posts/pairs/3.txt").read_text()
    assert Path(work / shown["thumbnail"]).read_bytes().startswith(b"\xff\xd8\xff")
    assert {c["modality"] for c in shown["caches"]} == {"text", "image"}
    assert all(c["rows"][0]["variant"] == 0 for c in shown["caches"])
    assert "positions" in mmsa(work, "cache", "show", "3").stdout
    failed = mmsa(work, "cache", "show", "30000", code=3)
    assert "has no sample '30000'" in failed.stderr
    assert "does not know what to remove" in mmsa(work, "cache", "prune", code=2).stderr

    mmsa(work, "extract", "--tokens", "none", "--split", "test", "--cache", str(tmp_path / "c"))
    mmsa(work, "extract", "--split", "test", "--cache", str(tmp_path / "c"))
    arguments = ("cache", "prune", "--stale", "--json", "--cache", str(tmp_path / "c"))
    said = json.loads(mmsa(work, *arguments).stdout)
    assert [r["state"] for r in said] == ["would be removed"] * 2
    assert len(list_caches(tmp_path / "c")) == 4
    done = json.loads(mmsa(work, *arguments, "--yes").stdout)
    assert [r["directory"] for r in done] == [r["directory"] for r in said]
    assert len(list_caches(tmp_path / "c")) == 2
    second = mmsa(work, "extract", "--split", "test", "--cache", str(tmp_path / "c"))
    assert second.stderr.count("nothing to do") == 2


def samples(labels: list[int | None]) -> list[Sample]:
    return [Sample(str(i), v, "t", Path("x"), "t", "i") for i, v in enumerate(labels)]


def test_copies_follow_the_setting() -> None:
    rows = samples([0] * 12 + [1] * 3 + [2] * 5 + [None])

    def copies(value: object, split: str = "train") -> dict[int, int]:
        return copies_of(load_settings({"extract.variants": value}, environ={}), split, rows)

    assert copies("report") == {0: 0, 1: 3, 2: 2}  # target int(20 · 1.5) // 3 = 10
    assert copies("2") == copies(2) == {0: 2, 1: 2, 2: 2}
    assert copies("none") == copies("2", "test") == {}
    for wrong in ("three", "0", -1, 1.5, True):
        with pytest.raises(SettingsError, match=r"1 setting\(s\) cannot be used") as caught:
            copies(wrong)
        assert "write report, none, or a number of copies from 1" in caught.value.problems[0]


def test_free_pairing_draws_every_pair_of_the_same_sample() -> None:
    rows = [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
    bank = FeatureBank(
        ModalityFeatures([shard(rows)], "text"),
        ModalityFeatures([shard(rows)], "image"),
        ["a", "b", "c"],
        [0, 1, 2],
    )
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
    assert classes("negative positive") == ("positive", "neutral", "negative")
    # a mistyped sentiment stays a mistake, which reading names with its line
    assert classes("Positive neutral bad") == ("positive", "neutral", "negative")
    assert classes("spring spring", **{"data.classes": "b,a"}) == ("b", "a")
    for wrong in ("one", ["a", "a"], ["a", "null"], [" a", "b"], ["a,b", "c"], 3):
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
        refused(as_json=False, debug=False)
    assert ended.value.exit_code == 5
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    with pytest.raises(type(error)):
        refused(as_json=False, debug=True)


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
        dies(as_json=False, debug=False)
    assert ended.value.exit_code == 130
    assert time.monotonic() - started < 15
    assert sys.unraisablehook is hook
    assert "Traceback" not in capsys.readouterr().err


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


def test_verify_rehashes_what_an_unfinished_extraction_has_sealed(
    tmp_path: Path,
) -> None:
    settings = load_settings({"cache.dir": tmp_path}, environ={})
    whole = make_cache(tmp_path / "train" / "text" / "whole")
    begun = make_cache(tmp_path / "train" / "text" / "begun", rows=2 * len(ROWS))
    assert [(r.complete, r.problems) for r in verify(settings)] == [(False, []), (True, [])]

    # The receipt names a shard before it has its name: that is no damage, nor is it to ls.
    receipt = json.loads((begun / RECEIPT).read_text())
    first = receipt["shards"][0]
    receipt["shards"].append({**first, "name": "shard-00001.h5"})
    (begun / RECEIPT).write_text(json.dumps(receipt))
    raise_damaged(verify(settings))
    assert [c.problem for c in list_caches(tmp_path)] == ["", ""]

    for folder in (begun, whole):
        path = folder / "shard-00000.h5"
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
    with pytest.raises(DamagedCacheError) as caught:
        raise_damaged(verify(settings))
    assert len(caught.value.problems) == 2
    for folder, line in zip((begun, whole), caught.value.problems, strict=True):
        assert str(folder / "shard-00000.h5") in line
