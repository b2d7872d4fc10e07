"""``mmsa extract`` by parts and by workers: the row bytes of one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from extract.crew.local import LocalCrew
from mmsa_cache.compose.extraction import crew, extraction
from mmsa_cache.compose.extraction.crew import EncoderSource, EngineRequest
from mmsa_cache.compose.extraction.feature_requests import feature_requests
from mmsa_cache.compose.extraction.reading import read_splits
from mmsa_cache.compose.session import encoders
from mmsa_cache.compose.session.encoders import resolve_encoder
from mmsa_cache.compose.session.path_policy import PathPolicy
from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.loading import load_settings
from mmsa_cache.errors import DeviceError, ModelError, SettingsError
from tests.support.data_folders import mmsa
from tests.support.engine_rows import Rows, rows_in
from tests.support.pairs import make_pairs
from tests.support.small_work import call_json
from tests.support.tiny import tiny_toml


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    make_pairs(folder / "posts", 60)
    more = "[cache]\nshard_rows = 4\n[extract]\nbatch_size = 4\n"
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "vit_tiny_patch16_224", more))
    return folder


@pytest.fixture(scope="module")
def plain(work: Path) -> Rows:
    mmsa(work, "extract", "--split", "all", "--cache", "plain")
    return rows_in(work / "plain")


@pytest.mark.usefixtures("fresh_workers")
def test_workers_here_give_the_rows_of_one_process(work: Path, plain: Rows) -> None:
    told = ("extract", "--split", "all", "--workers", "2", "--cache", "local")
    records = call_json(work, *told)
    assert rows_in(work / "local") == plain
    assert sum(record["rows_computed"] for record in records) == len(plain)
    assert sum(record["rows_computed"] for record in call_json(work, *told)) == 0


def test_parts_are_finished_by_one_of_them(work: Path, plain: Rows) -> None:
    told = ("extract", "--split", "all", "--cache", "parts", "--shards")
    for part in ("1/4", "3/4"):  # the second one was never started
        mmsa(work, *told, part)
    before = rows_in(work / "parts")
    assert before.items() <= plain.items()
    records = call_json(work, *told, "4/4", "--finish")
    assert rows_in(work / "parts") == plain
    done = sum(record["rows_computed"] for record in records)
    assert done == len(plain) - len(before)
    assert sum(record["rows_already_there"] for record in records) == len(before)


def test_parts_merge_only_when_they_are_finished(
    work: Path, plain: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extract import publisher
    from mmsa_cache.store import writer

    monkeypatch.setattr(publisher, "GATHERED_SECONDS", 0.0)
    monkeypatch.setattr(writer, "_MOST_SMALL", 1)

    def shards() -> int:
        return len(list((work / "merged").glob("features/*/*/*.h5")))

    for part in ("1/2", "2/2"):
        mmsa(work, "extract", "--split", "all", "--cache", "merged", "--shards", part)
    assert shards() > 10
    mmsa(work, "extract", "--split", "all", "--cache", "merged")
    assert shards() == 2
    assert rows_in(work / "merged") == plain


def test_what_does_not_go_together_is_said(work: Path) -> None:
    out = mmsa(work, "extract", "--address", "localhost:1", code=2).output
    assert "--address is of a Ray cluster" in out
    for engine in (None, "local"):
        with pytest.raises(SettingsError, match="would start so many processes at once"):
            EngineRequest(engine, workers=5000)
    assert EngineRequest("ray", workers=5000).workers == 5000
    assert "Give --engine ray" in out
    assert "is no part" in mmsa(work, "extract", "--shards", "3/2", code=2).output


def test_a_driver_of_a_cluster_needs_no_gpu_of_its_own(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = load_settings({"device": "cuda"})
    assert EngineRequest("ray").device(settings) == torch.device("cuda")
    assert resolve_encoder(settings, "image").identity.fields["device"] == "cuda"
    assert EngineRequest("ray").device(load_settings()) == torch.device("cpu")
    with pytest.raises(DeviceError, match="no CUDA device"):
        EngineRequest("local").device(settings)
    mmsa(work, "extract", "--device", "cuda", code=5)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_cards")
def test_which_cards_workers_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Sequence[str]] = []

    class Crew:
        def __init__(self, source: Any, sealers: Any, devices: Sequence[str], size: int) -> None:
            seen.append(devices)

    monkeypatch.setattr(crew, "LocalCrew", Crew)

    def cards(device: str = "auto", **asked: Any) -> Sequence[str] | None:
        settings = load_settings({"device": device})
        request = EngineRequest(**asked).with_all_gpus(settings)
        if request.chosen is None:
            return None
        request.crew(None, [], request.device(settings), None)  # type: ignore[arg-type]
        return seen.pop()

    both = ["cuda:0", "cuda:1"]
    assert cards() == cards("cuda") == cards(devices=(0, 1)) == cards(engine="local") == both
    assert cards(target="s3://bucket/path") == both
    assert cards(devices=(1, 0)) == both[::-1]
    assert cards("cuda:1") is cards(devices=(1,)) is None  # this process does it
    assert EngineRequest(devices=(1,)).device(load_settings()) == torch.device("cuda:1")
    assert cards(workers=3) == [*both, both[0]]
    assert cards("cuda:1", workers=2) == cards(devices=(1,), workers=2) == both[1:] * 2
    assert cards("cuda:1", target="s3://bucket/path") == both[1:]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert cards("cuda") is cards() is None
    with pytest.raises(DeviceError, match=r"no cuda:1: this machine has 1 CUDA"):
        cards(devices=(0, 1))
    with pytest.raises(SettingsError, match="the device cuda:0 do not go together"):
        cards("cuda:0", devices=(0,))
    with pytest.raises(SettingsError, match="twice"):
        cards(devices=(0, 0))
    with pytest.raises(SettingsError, match="a Ray worker has its own GPU"):
        cards(devices=(0,), engine="ray")


@pytest.mark.usefixtures("two_cards", "fresh_workers")
def test_all_cards_give_the_rows_of_one_process(
    work: Path, plain: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    class OnTheCpu(LocalCrew):
        def __init__(self, source: Any, sealers: Any, cards: Sequence[str], size: Any) -> None:
            devices.extend(cards)
            super().__init__(source, sealers, ["cpu"] * len(cards), size)

    monkeypatch.setattr(crew, "LocalCrew", OnTheCpu)
    monkeypatch.setattr(encoders, "device_kind", lambda name: "cpu")
    told = ("extract", "--device", "cuda", "--cache", "cards", "--split")
    call_json(work, *told, "train")
    assert devices == ["cuda:0", "cuda:1"]
    call_json(work, *told, "all", "--devices", "1,0")
    assert devices == ["cuda:0", "cuda:1", "cuda:1", "cuda:0"]
    assert rows_in(work / "cards") == plain
    # What one window holds is not shared out.
    here: list[int] = []
    monkeypatch.setattr(
        extraction.Extraction,
        "_write_here",
        lambda self, missing, part: here.extend(missing.values()),
    )
    monkeypatch.setenv("MMSA_CACHE_SHARD_ROWS", "1000")
    mmsa(work, *told, "test", "--cache", "few")
    assert len(devices) == 4
    assert here


@pytest.mark.parametrize("flag", ["--compile", "--no-compile"])
def test_features_are_the_same_whether_compiled_for_or_not(
    work: Path, plain: Rows, flag: str
) -> None:
    records = call_json(work, "extract", "--split", "all", "--cache", "plain", flag)
    assert sum(record["rows_computed"] for record in records) == 0
    assert rows_in(work / "plain") == plain


def test_cards_are_named_by_numbers(work: Path) -> None:
    out = mmsa(work, "extract", "--devices", "cuda:0", code=2).output
    assert "--devices takes numbers, received 'cuda:0'" in out
    if not torch.cuda.is_available():
        out = mmsa(work, "extract", "--devices", "0,1", code=5).output
        assert "There is no CUDA device.\n  → Leave --devices out." in out


def test_a_worker_refuses_another_encoder_than_the_drivers(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has other weights under the same name."""
    monkeypatch.chdir(work)
    settings = load_settings()
    store = Store(work / "none", renewing=True)
    splits = read_splits(settings, store, "test")
    wanted = list(feature_requests(settings, store, PathPolicy(settings, work), "default", splits))
    source = EncoderSource.of(wanted, settings.seed)
    source.load(0, torch.device("cpu"))
    changed = wanted[0].settings.model_copy(
        update={"text": wanted[0].settings.text.model_copy(update={"max_tokens": 8})}
    )
    named = source.jobs[0]
    other = EncoderSource((type(named)(changed, named.identity),), 0, work)
    with pytest.raises(ModelError, match=r"is another encoder on .*max_tokens"):
        other.load(0, torch.device("cpu"))


def test_what_an_engine_costs_is_measured_beside_plain_extraction(work: Path) -> None:
    from mmsa_cache.native.cores import usable_cores

    figures = call_json(
        work, "bench", "extract", "--engine", "local", "--pairs", "20", "--rounds", "1"
    )
    rate = figures["engine_rows_per_s"]
    assert figures["overhead"] == pytest.approx(1 - rate / figures["plain_rows_per_s"])
    assert figures["gain"] == pytest.approx(rate / figures["one_worker_rows_per_s"])
    assert (figures["workers"], figures["overhead_rounds"]) == (
        usable_cores(),
        [figures["overhead"]],
    )
    assert 20 < figures["rows"] <= 40  # equal texts are one row
    assert figures["start_seconds"] > 0
