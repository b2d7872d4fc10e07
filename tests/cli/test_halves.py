"""Data of which some rows have no picture or no text, from the folder to the figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.pairs import ABSENT, Sample
from mmsa_cache.data.scan import scan_split
from mmsa_cache.data.stored_split import read_split, split_path, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from tests.support.data_folders import mmsa
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

ROWS = 84
NO_PICTURE, NO_TEXT = set(range(0, ROWS, 6)), set(range(3, ROWS, 12))
ALLOW = ("--missing", "allow")
QUICK = ("--outer", "grouped", "--folds", "2", "--set", "epochs=2", "--set", "text_dim=8")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """The same posts in the report's layout and as a table."""
    folder = tmp_path_factory.mktemp("halves")
    make_pairs(folder / "posts", ROWS)
    pairs = folder / "posts" / "pairs"
    rows = [["guid", "text", "image", "label"]]
    tags = dict(csv.reader((folder / "posts" / "train.txt").read_text().splitlines()))
    for i in range(ROWS):
        text, picture = pairs / f"{i}.txt", pairs / f"{i}.jpg"
        if i in NO_PICTURE:
            picture.unlink()
        elif i in NO_TEXT:
            text.write_text("") if i % 2 else text.unlink()
        said = text.read_text() if i not in NO_TEXT else ""
        image = "" if i in NO_PICTURE else f"posts/pairs/{i}.jpg"
        if str(i) in tags:
            rows.append([str(i), said, image, tags[str(i)]])
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t"))
    return folder


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    said = mmsa(work, "extract", "--split", "all", *ALLOW).stderr
    assert "train: 12 posts have no picture, 6 no text" in said
    shown = mmsa(work, "train", "--name", "r", *QUICK, "--set", "fusion=attention_concat").stdout
    for kind in ("whole posts", "text only", "picture only"):
        assert f"outer, {kind}" in shown
    return work


def test_the_error_names_the_rows_and_the_key(work: Path) -> None:
    failed = mmsa(work, "extract", "--cache", "other", code=3)
    assert "6: no picture 6.jpg" in failed.stderr
    assert "9.txt: empty file" in failed.stderr
    assert '--missing allow ([data] missing = "allow")' in failed.stderr
    table = ("--data", "table.csv", "--cache", "other")
    failed = mmsa(work, "extract", *table, code=3)
    assert "table.csv:2: 0: no picture" in failed.stderr
    assert "table.csv:5: empty text" in failed.stderr
    assert "--missing allow" in failed.stderr


def test_both_layouts_read_the_same_posts(work: Path) -> None:
    settings = DataSettings(missing="allow")
    folder, table = (
        scan_split(settings.model_copy(update={"root": work / name}), "train").samples
        for name in ("posts", "table.csv")
    )
    assert folder.guids == table.guids
    np.testing.assert_array_equal(folder.labels, table.labels)
    for modality in ("text", "image"):
        np.testing.assert_array_equal(folder.digests(modality), table.digests(modality))
    expected = [(i not in NO_TEXT - NO_PICTURE, i not in NO_PICTURE) for i in range(72)]
    np.testing.assert_array_equal(folder.present, expected)


def test_a_picture_that_is_named_and_missing_is_bad_and_so_is_an_empty_row(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "guid,text,image,label\n1,a,nil.jpg,neutral\n2,,,neutral\n3,b,,neutral\n4,c,,positive\n"
    )
    found = scan_split(DataSettings(root=tmp_path, missing="allow"), "train")
    assert found.samples.guids == ["3", "4"]
    assert [row.messages for row in found.bad] == [
        [f"train.csv:2: nil.jpg: no such file in {tmp_path.resolve()}"],
        ["train.csv:3: 2: neither a text nor a picture"],
    ]


def test_posts_without_a_picture_are_no_twins() -> None:
    def sample(guid: str, key: str) -> Sample:
        return Sample(guid, 0, guid, None, guid * 64, ABSENT, key.encode() * 16)

    table = SampleTable.from_samples([sample("1", "a"), sample("2", "b"), sample("3", "a")])
    assert table.groups().tolist() == [0, 1, 0]


def test_scores_stand_apart(trained: Path) -> None:
    figures = json.loads((trained / "runs" / "r" / "metrics.json").read_text())
    rows = {kind: scores["rows"] for kind, scores in figures["halves"].items()}
    assert set(rows) == {"whole posts", "text only", "picture only"}
    assert sum(rows.values()) == figures["outer"]["rows"]
    page = (trained / "runs" / "r" / "report.html").read_text()
    for kind in rows:
        assert f'<th scope="row">{kind}</th><td>{rows[kind]}</td>' in page
    labels = ("--labels", "posts/answers.csv", "--json")
    judged = json.loads(mmsa(trained, "evaluate", "--run", "r", *labels).stdout)
    assert {kind: of["rows"] for kind, of in judged["halves"].items()} == {
        "whole posts": 9,
        "text only": 2,
        "picture only": 1,
    }


def test_posts_are_predicted_as_they_were_read(trained: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        model = load_model("r")
        split = dict(model.predict_split("test"))
        live = model.predict_posts(model.session.samples("test"))
        text = model.predict(text=(Path("posts/pairs/72.txt")).read_text())
        picture = model.predict(image="posts/pairs/75.jpg")
    np.testing.assert_allclose(live, [*split.values()], atol=2e-3)
    np.testing.assert_allclose([*text.values()], split["72"], atol=2e-3)
    np.testing.assert_allclose([*picture.values()], split["75"], atol=2e-3)
    said = mmsa(trained, "predict", "--run", "r", "--text", "good day").stderr
    assert "whole pairs only" not in said, "it has learned from half posts"


def test_the_store_is_complete_and_keeps_the_key(trained: Path) -> None:
    done = json.loads(mmsa(trained, "extract", "--split", "all", "--json").stdout)
    assert [part["rows_computed"] for part in done] == [0, 0, 0, 0]
    listed = json.loads(mmsa(trained, "cache", "ls", "--json").stdout)
    assert all(found["complete"] == {"train": 1.0, "test": 1.0} for found in listed)
    assert all(found["unused"] == 0 for found in listed)
    assert "as sealed" in mmsa(trained, "cache", "verify").stdout
    shown = json.loads(mmsa(trained, "cache", "show", "0", "--json").stdout)
    assert {cache["modality"] for cache in shown["caches"] if cache["rows"]} == {"text"}
    alone = trained / "alone"
    shutil.copytree(trained / "cache", alone / "cache")
    shutil.copy(trained / "mmsa.toml", alone)
    shutil.rmtree(alone / "posts", ignore_errors=True)
    mmsa(alone, "train", "--name", "s", *QUICK, "--set", "fusion=concat")


def test_a_row_without_either_half_is_not_stored(trained: Path, tmp_path: Path) -> None:
    about, samples = read_split(split_path(trained / "cache", "test"))
    empty = Sample("x", None, "", None, ABSENT, ABSENT, None)
    rows = SampleTable.from_samples([samples[0], empty])
    with pytest.raises(DataError, match="neither a text nor a picture"):
        write_split(tmp_path / "data" / "test.parquet", about, rows)


def test_no_row_with_a_picture_is_said(work: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("guid,text,image,label\n1,a,,neutral\n2,b,,positive\n")
    failed = mmsa(work, "extract", "--data", str(tmp_path), "--cache", "other", *ALLOW, code=3)
    assert "No row of train has a picture" in failed.stderr


def test_imported_features_need_rows_of_what_is_there_alone(trained: Path) -> None:
    _, samples = read_split(split_path(trained / "cache", "train"))
    has = samples.present[:, 1]
    guids = [guid for guid, there in zip(samples.guids, has, strict=True) if there]
    values = np.random.default_rng(0).standard_normal((len(guids), 4)).astype(np.float32)
    np.save(trained / "picture.npy", values)
    (trained / "guids.txt").write_text("".join(f"{guid}\n" for guid in guids))
    shutil.copytree(trained / "cache" / "data", trained / "imported" / "data")
    asked = ("--modality", "image", "--name", "own", "--split", "train", "--guids", "guids.txt")
    done = mmsa(trained, "cache", "import", "picture.npy", *asked, "--cache", "imported", "--json")
    assert json.loads(done.stdout)[0]["rows"] == len(guids)
    short = "".join(f"{guid}\n" for guid in guids[:-1])
    (trained / "guids.txt").write_text(short)
    np.save(trained / "picture.npy", values[:-1])
    failed = mmsa(trained, "cache", "import", "picture.npy", *asked, "--cache", "imported", code=3)
    assert f"guid {guids[-1]}: train has it, the files do not" in failed.stderr
