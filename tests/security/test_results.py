"""Files that the user asks for: none that is there is replaced unasked, none through a link."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmsa_cache.errors import LinkError, SettingsError
from mmsa_cache.files.results import check_outputs, write_result
from tests.support.data_folders import GOOD, make_data
from tests.support.made_up_run import write_run
from tests.support.small_work import mmsa

WRITERS = {
    "predict": "predict --run r --split test --out {}",
    "ablate": "ablate --axis loss=ce,acb --out {}",
    "ablate page": "ablate report --out {}",
    "report": "report r --out {}",
    "check": "check data --text-model gone --html {}",
    "bench gpu": "bench gpu --rehearse {}",
}


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_no_file_is_replaced_unasked(tmp_path: Path, words: str) -> None:
    """Before any work: these folders hold nothing to work with."""
    thesis = tmp_path / "thesis.md"
    thesis.write_text("mine")
    said = mmsa(tmp_path, *words.format("thesis.md").split(), code=2).output
    assert "thesis.md exists already." in said
    assert "--force" in said
    (tmp_path / "link.md").symlink_to(thesis)
    said = mmsa(tmp_path, *words.format("link.md").split(), "--force", code=2).output
    assert "link.md is a link" in said
    (tmp_path / "folder.md").mkdir()
    said = mmsa(tmp_path, *words.format("folder.md").split(), "--force", code=2).output
    assert "folder.md is no regular file" in said
    assert thesis.read_text() == "mine"


def test_the_pictures_beside_a_page_and_packed_features_are_claimed_too(tmp_path: Path) -> None:
    (tmp_path / "t.svg").write_text("mine")
    said = mmsa(tmp_path, "ablate", "report", "--out", "t.md", code=2).output
    assert "t.svg exists already." in said
    (tmp_path / "pooled.npz").write_text("mine")
    assert "exists already." in mmsa(tmp_path, "bench", "gpu", "--pack", ".", code=2).output
    assert mmsa(tmp_path, "ablate", "report", "--out", ".", code=2).output


def test_force_replaces_and_folders_are_made(tmp_path: Path) -> None:
    make_data(tmp_path / "data", GOOD)
    words = ("check", "data", "--text-model", "gone", "--html", "page.html")
    mmsa(tmp_path, *words)
    mmsa(tmp_path, *words, code=2)
    (tmp_path / "page.html").write_text("older")
    mmsa(tmp_path, *words, "--force")
    assert "mmsa check" in (tmp_path / "page.html").read_text()
    write_run(tmp_path / "r")
    mmsa(tmp_path, "report", "r", "--out", "deep/down/page.html")
    mmsa(tmp_path, "report", "r")
    mmsa(tmp_path, "report", "r")
    assert (tmp_path / "deep/down/page.html").stat().st_size > 1000


def test_results_outside_may_lie_behind_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, data = tmp_path / "home", tmp_path / "disk"
    for folder in (home, data):
        folder.mkdir()
    monkeypatch.chdir(home)
    (tmp_path / "link").symlink_to(data)
    check_outputs(tmp_path / "link" / "a.csv", force=False)
    write_result(tmp_path / "link" / "a.csv", "a")
    assert (data / "a.csv").read_text() == "a"
    with pytest.raises(SettingsError, match="exists already"):
        check_outputs(tmp_path / "link" / "a.csv", None, force=False)
    Path("planted").symlink_to(data)
    with pytest.raises(LinkError, match="planted is a link"):
        check_outputs(Path("planted/b.csv"), force=True)
    with pytest.raises(LinkError, match="planted is a link"):
        write_result(Path("planted/b.csv"), "b")
    shutil.rmtree(tmp_path / "home")
    assert [path.name for path in data.iterdir()] == ["a.csv"]
