"""Data as people have it goes through the whole: looked at, extracted, trained on, predicted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.config.hub_copy import HubData, hub_address
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data import file_hashes, pairs
from mmsa_cache.data.scan import scan_split
from mmsa_cache.errors import DataError, SettingsError
from tests.support.hub_server import Hub, Repository, hub_server
from tests.support.small_work import QUICK, call, call_json, mmsa
from tests.support.sources import PICTURES, SOURCES, SPLITS, picture, save_split, table_of
from tests.support.tiny import tiny_toml

VARIANTS = '[extract]\nvariants = "none"\n'


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """All the sources, and the features of the first that has pictures inside."""
    folder = tmp_path_factory.mktemp("sources")
    for source, write in SOURCES.items():
        write(folder / source)
    settings = tiny_toml(text_model, "mobilenetv2_035", VARIANTS, data='root = "parquet"')
    (folder / "mmsa.toml").write_text(settings)
    time.sleep(file_hashes.CLOCK_TICK + 0.02)
    records = call_json(folder, "extract", "--split", "all")
    assert sum(record["rows_computed"] for record in records) == 2 * 26
    return folder


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_posts_in_any_form(
    work: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check reads them, their features are known, and a second extraction opens no picture."""
    found = call_json(work, "check", source)
    assert found["problems"] == []
    assert found["pictures"]["named_as_another_format"] == 0
    read = {split["split"]: split for split in found["splits"]}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert read[split]["rows"] == len(SPLITS[name])
    if source == "memes":
        return  # it has other classes than the store
    extract = ("extract", "--data", source, "--split", "all")
    assert sum(record["rows_computed"] for record in call_json(work, *extract)) == 0

    def refuse(*_: Any, **__: Any) -> bytes:
        raise AssertionError("a picture is read again")

    monkeypatch.setattr(pairs, "read_picture_inside", refuse)
    records = call_json(work, *extract)
    assert {record["split"]: record["samples"] for record in records} == {
        "train": 18,
        "val": 4,
        "test": 4,
    }


@pytest.mark.parametrize("source", ["parquet", "saved", "shards"])
def test_labels_are_those_of_the_posts(work: Path, source: str) -> None:
    settings = load_settings({"data.root": work / source}, environ={})
    table = scan_split(settings.data, "train").samples
    assert table.labels.tolist() == [(2 - post) % 3 for post in range(18)]
    plain = scan_split(DataSettings(root=work / "csv"), "train").samples
    assert table.digest({}) == plain.digest({})


def test_hateful_memes_have_numbers_for_labels(work: Path) -> None:
    """Rows of two files count once; the tests have no labels."""
    found = scan_split(DataSettings(root=work / "memes", classes=("0", "1")), "val")
    assert found.samples.guids == ["18", "19", "20", "21"]
    assert found.samples.labels.tolist() == [0, 1, 0, 1]
    assert any("read once" in note for note in found.listing.notes)
    assert set(scan_split(DataSettings(root=work / "memes"), "test").samples.labels) == {-1}


def test_rows_of_two_files_that_differ_are_there_twice(tmp_path: Path) -> None:
    SOURCES["memes"](tmp_path / "memes")
    lines = (tmp_path / "memes/dev_unseen.jsonl").read_text().replace("plain sea 19", "other")
    (tmp_path / "memes/dev_unseen.jsonl").write_text(lines)
    with pytest.raises(DataError, match="guid 19 is already in line 2"):
        scan_split(DataSettings(root=tmp_path / "memes"), "val")


def test_a_model_is_trained_and_predicts_pictures_inside(work: Path) -> None:
    call(work, "extract", "--data", "parquet")
    call(work, "train", "--data", "parquet", *QUICK, "--name", "one")
    (work / "new").mkdir()
    pq.write_table(table_of(SPLITS["test"]).drop(["label"]), work / "new/test.parquet")
    mmsa(work, "predict", "--run", "one", "--data", "new", "--split", "test", "--out", "p.csv")
    assert len((work / "p.csv").read_text().splitlines()) == 5


def test_a_bad_picture_inside_is_named_and_set_aside(work: Path, tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text((work / "mmsa.toml").read_text())
    table = table_of(SPLITS["train"])
    cells = table["image"].to_pylist()
    cells[3]["bytes"] = cells[3]["bytes"][:-300]
    cells[5] = {"bytes": b"GIF is none", "path": None}
    table = table.set_column(0, "image", pa.array(cells, PICTURES))
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet/train.parquet")
    said = call(tmp_path, "extract", code=3)
    assert "train.parquet!/image/3" in said
    assert "train.parquet!/image/5" in said
    records = call_json(tmp_path, "extract", "--on-bad", "skip", "--max-bad", "20%")
    assert {record["set_aside"] for record in records} == {2}
    assert all(record["rows_computed"] == 16 for record in records)
    again = call_json(tmp_path, "extract", "--on-bad", "skip", "--max-bad", "20%")
    assert all(record["rows_computed"] == 0 for record in again)


def test_a_saved_data_set_alone_is_the_training_rows(tmp_path: Path) -> None:
    save_split(tmp_path / "saved", range(9))
    assert len(scan_split(DataSettings(root=tmp_path / "saved"), "train").samples) == 9
    save_split(tmp_path / "shuffled", range(9), _indices_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DataError, match="file of indices") as caught:
        scan_split(DataSettings(root=tmp_path / "shuffled"), "train")
    assert "flatten_indices" in caught.value.hint


def test_what_is_incomplete_or_several_data_sets(tmp_path: Path) -> None:
    SOURCES["parquet"](tmp_path / "part")
    (tmp_path / "part/data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="holds 1 of the 2 parts of train-00000"):
        scan_split(DataSettings(root=tmp_path / "part"), "train")
    half = DataSettings(root=tmp_path / "part/data/train-00000-of-00002.parquet")
    assert len(scan_split(half, "train").samples) == 9  # the file alone was asked for
    for name in ("one", "two"):
        SOURCES["parquet"](tmp_path / "several" / name)
        if name == "one":
            assert len(scan_split(DataSettings(root=tmp_path / "several"), "train").samples) == 18
    with pytest.raises(DataError, match="several data sets: one, two") as caught:
        scan_split(DataSettings(root=tmp_path / "several"), "train")
    assert "--data" in caught.value.hint


def test_compressed_tables_name_what_unpacks_them(tmp_path: Path) -> None:
    (tmp_path / "train-000.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="compressed") as caught:
        scan_split(DataSettings(root=tmp_path), "train")
    assert caught.value.hint == "Unpack it: gunzip -c train-000.tar.gz > train-000.tar"


def test_a_url_is_a_picture_only_once_it_is_there(tmp_path: Path) -> None:
    urls = ["https://x.y/p/a.jpg?size=large", "https://x.y/p/b?format=jpg", "http://x.y/c.jpg"]
    rows = [f"text {place},{url},positive" for place, url in enumerate(urls)]
    (tmp_path / "train.csv").write_text("\n".join(["text,image,label", *rows]))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(picture(0))
    (tmp_path / "images/b.jpg").write_bytes(picture(1))
    with pytest.raises(
        DataError, match=r"download the pictures beside train[.]csv first"
    ) as caught:
        scan_split(DataSettings(root=tmp_path), "train")
    assert "train.csv:4" in str(caught.value)
    (tmp_path / "images/c.jpg").write_bytes(picture(2))
    assert len(scan_split(DataSettings(root=tmp_path), "train").samples) == 3


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and the cache of its client, for this process."""
    from huggingface_hub import constants

    with hub_server() as hub:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        values = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + template}
        values |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": True}
        for key, value in (values | {"HF_HUB_OFFLINE": False}).items():
            monkeypatch.setattr(constants, key, value)
        yield hub


def test_a_data_set_of_the_hub_is_fetched_by_extract_alone(
    hub: Hub, tmp_path: Path, text_model: Path
) -> None:
    source, folder = tmp_path / "parquet", tmp_path / "work"
    SOURCES["parquet"](source)
    files = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }
    files |= {".gitattributes": b"", "load.py": b"raise SystemExit", "all.zip": b"PK"}
    hub.repositories["me/posts"] = Repository(files=files)
    folder.mkdir()
    data = 'root = "hf://datasets/me/posts"'
    settings = tiny_toml(text_model, "mobilenetv2_035", VARIANTS, data=data)
    (folder / "mmsa.toml").write_text(settings)
    assert "mmsa extract --data hf://datasets/me/posts" in call(folder, "check", code=2)
    assert hub.requests == []
    assert "no data set me/none" in call(
        folder, "check", "--online", "hf://datasets/me/none", code=4
    )
    hub.broken["data/test-00001-of-00002.parquet"] = 1  # goes on where it stopped
    records = call_json(folder, "extract", "--split", "all")
    assert sum(record["rows_computed"] for record in records) == 2 * 26
    assert not {"load.py", "all.zip"} & {*hub.downloads()}
    hub.requests.clear()
    records = call_json(folder, "extract", "--split", "all")
    assert sum(record["rows_computed"] for record in records) == 0
    sha = hub.repositories["me/posts"].sha
    assert call_json(folder, "check", f"hf://datasets/me/posts@{sha}")["problems"] == []
    shown = call(tmp_path, "init", f"hf://datasets/me/posts@{sha}", "--yes")
    assert f"hf://datasets/me/posts@{sha}: layout tables" in shown
    assert f'root = "hf://datasets/me/posts@{sha}"' in (tmp_path / "mmsa.toml").read_text()
    assert hub.requests == []  # what is here is not asked for
    assert "no data set me/none" in call(
        folder, "extract", "--data", "hf://datasets/me/none", code=4
    )
    about = (folder / "cache/data/train.parquet").read_bytes()
    assert f"hf://datasets/me/posts@{sha}".encode() in about


def test_names_of_data_sets_of_the_hub(tmp_path: Path) -> None:
    assert HubData.of("me/posts@refs/convert/parquet").revision == "refs/convert/parquet"
    assert HubData.of("imdb").address == "hf://datasets/imdb"
    for name in ("", "../x", "a/b/c", "a/b@", "a--b/c", "a/b@../../x"):
        with pytest.raises(SettingsError, match="names no data set"):
            HubData.of(name)
    assert hub_address(tmp_path) is None
    assert load_settings({"data.root": "hf://datasets/a/b"}, environ={}).data.hub_name == "a/b"
