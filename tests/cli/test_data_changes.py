"""What a change of the data costs: the inputs that are new, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.data_folders import noise, saved
from tests.support.pairs import make_pairs
from tests.support.small_work import QUICK, call, call_json, mmsa
from tests.support.tiny import tiny_toml

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("original")
    make_pairs(folder / "posts", 72)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "resnet10t",
            """[extract]
variants = 2
""",
        )
    )
    (folder / "studies").mkdir()
    (folder / "studies/one.toml").write_text(
        '[protocol]\nouter = "grouped"\nfolds = 2\n'
        '[fixed]\nepochs = 1\ntext_dim = 16\nimage_dim = 16\nhead = ""\n'
        '[space]\nloss = ["acb", "ce"]\n'
    )
    call(folder, "extract", "--split", "all")
    return folder


@pytest.fixture
def work(original: Path, tmp_path: Path) -> Path:
    """A copy of the data and its store."""
    return Path(shutil.copytree(original, tmp_path / "work"))


def labels(work: Path) -> list[str]:
    return (work / "posts/train.txt").read_text().splitlines()


def write_labels(work: Path, lines: list[str]) -> None:
    (work / "posts/train.txt").write_text("\n".join(lines) + "\n")


def add(work: Path) -> None:
    (work / "posts/pairs/new.txt").write_text("a new text")
    (work / "posts/pairs/new.jpg").write_bytes(saved(noise(5)))
    write_labels(work, [*labels(work), "new,neutral"])


def add_twin(work: Path) -> None:
    """A post with the text of one and the picture of another."""
    shutil.copy(work / "posts/pairs/3.txt", work / "posts/pairs/twin.txt")
    shutil.copy(work / "posts/pairs/4.jpg", work / "posts/pairs/twin.jpg")
    write_labels(work, [*labels(work), "twin,neutral"])


def remove(work: Path) -> None:
    write_labels(work, [line for line in labels(work) if not line.startswith("7,")])


def relabel(work: Path) -> None:
    def other(line: str) -> str:
        tag = "neutral" if line.endswith("positive") else "positive"
        return f"7,{tag}" if line.startswith("7,") else line

    write_labels(work, [other(line) for line in labels(work)])


def rename(work: Path) -> None:
    for ending in ("txt", "jpg"):
        path = work / f"posts/pairs/7.{ending}"
        path.rename(path.with_stem("seven"))
    write_labels(
        work, [line.replace("7,", "seven,") if line[:2] == "7," else line for line in labels(work)]
    )


def reorder(work: Path) -> None:
    header, *rows = labels(work)
    write_labels(work, [header, *reversed(rows)])


def another_text(work: Path) -> None:
    (work / "posts/pairs/7.txt").write_text("another text")


def another_picture(work: Path) -> None:
    (work / "posts/pairs/7.jpg").write_bytes(saved(noise(6)))


def computed(work: Path, *flags: str) -> dict[str, int]:
    """Rows that extraction computes, by modality; all others are there."""
    records = call_json(work, "extract", "--split", "all", *flags)
    found: dict[str, int] = {"text": 0, "image": 0}
    for record in records:
        found[record["modality"]] += record["rows_computed"]
        parts = ("rows_computed", "rows_already_there")
        assert record["rows"] == sum(record[part] for part in parts), record
    return found


@pytest.mark.parametrize(
    ("change", "new", "said"),
    [
        (add, (3, 3), "1 row added: new"),
        (add_twin, (0, 0), "1 row added: twin"),
        (remove, (0, 0), "1 row removed: 7"),
        (relabel, (0, 0), "1 row relabelled: 7"),
        (rename, (0, 0), "1 row added: seven"),
        (reorder, (0, 0), "the rows are in another order from 58 on"),
        (another_text, (3, 0), "1 row with another text: 7"),
        (another_picture, (0, 3), "1 row with another picture: 7"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_new_inputs_alone_are_computed(
    work: Path, change: Change, new: tuple[int, int], said: str
) -> None:
    change(work)
    failed = mmsa(work, "train", "--name", "r", *QUICK, code=4).stderr
    assert f"  - {said}\n" in failed
    assert "→ Run mmsa extract --split train: it computes only what is new." in failed
    assert computed(work) == dict(zip(("text", "image"), new, strict=True))
    assert computed(work) == {"text": 0, "image": 0}
    call(work, "train", "--name", "r", *QUICK)


def test_a_test_row_that_is_trained_on_costs_its_copies(work: Path) -> None:
    """Features are of inputs, not of splits."""
    write_labels(work, [*labels(work), "71,neutral"])
    records = call_json(work, "extract", "--split", "train")
    assert [record["rows_computed"] for record in records] == [2, 2]


def test_data_that_moved_or_was_touched_is_what_it_was(work: Path, tmp_path: Path) -> None:
    moved = (work / "posts").rename(tmp_path / "elsewhere")
    flags = ("--data", str(moved))
    call(work, "train", "--name", "r", *flags, *QUICK)
    assert computed(work, *flags) == {"text": 0, "image": 0}
    for path in (moved / "pairs").iterdir():
        path.touch()
    assert computed(work, *flags) == {"text": 0, "image": 0}
    assert computed(work, *flags, "--rehash") == {"text": 0, "image": 0}


def test_studies_of_other_labels_are_not_gone_on_with(work: Path) -> None:
    search = ("search", "--study", "one", "--workers", "1", "--trials")
    call(work, *search, "1")
    relabel(work)
    call(work, "extract")
    failed = mmsa(work, *search, "2", code=2).stderr
    assert "The study 'one' was begun with something else." in failed
    assert "  - data: the study has " in failed
    for name in ("best", "one", "one:0"):
        failed = mmsa(work, "train", "--study", name, code=2).stderr
        assert "  - one was made on other features or labels" in failed


def test_equal_inputs_of_one_split_are_counted(work: Path) -> None:
    add_twin(work)
    found: dict[tuple[str, str], Any] = {
        (record["split"], record["modality"]): record
        for record in call_json(work, "extract", "--split", "all")
    }
    train = found["train", "text"]
    assert train["samples"] == 61
    assert (train["rows"], train["rows_shared"]) == (180, 3)
    assert json.loads(mmsa(work, "cache", "show", "twin", "--json").stdout)["tag"] == "neutral"
