"""Folders that a run or a store names are neither read nor written outside the working folder."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.compose.session.completion import use_stored_data_settings, use_stored_encoder
from mmsa_cache.compose.session.encoders import resolve_encoder, resolve_local_encoder
from mmsa_cache.compose.session.path_policy import PathPolicy
from mmsa_cache.compose.session.store import Store
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.stored_split import StoredSplit, split_path, write_split
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError, ModelError
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from tests.support.older_runs import STORED, WANT
from tests.support.pairs import make_pairs
from tests.support.reading import read_split
from tests.support.small_work import mmsa

SECRET = "aws_secret_access_key"
TEXT = ("--text", "good day sun")
POST = (*TEXT, "--image", "posts/pairs/85.jpg", "--json")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a run; beside it a folder of secrets."""
    secrets = tmp_path / "secrets"
    (secrets / "store").mkdir(parents=True)
    (secrets / "train.txt").write_text(f"{SECRET}=abc\n")
    shutil.copytree(STORED / "tiny-bert", secrets / "tiny-bert")
    folder = tmp_path / "work"
    shutil.copytree(STORED, folder)
    make_pairs(folder / "posts", 92)
    settle(folder, root=str(folder / "posts"))
    monkeypatch.chdir(folder)
    return folder


def settle(folder: Path, *, root: str, **paths: str) -> None:
    """Writes the run's paths: of its data, and by section those of others."""
    path = folder / "runs/old/config.json"
    config = json.loads(path.read_text().replace("WORK", str(folder)))
    config["settings"]["data"]["root"] = root
    for section, value in paths.items():
        key = {"cache": "dir", "image": "weights"}.get(section, "model")
        config["settings"][section][key] = value
    path.write_text(json.dumps(config))


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    def seen() -> dict[str, Any]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
            for path in [folder, *folder.rglob("*")]
        }

    before = seen()
    yield
    assert seen() == before


@pytest.mark.parametrize("way", ["absolute", "steps up", "a link", "a link of the run"])
def test_the_data_of_a_run_is_not_looked_for_outside(work: Path, way: str) -> None:
    root = {"steps up": "../../../secrets", "a link": "../../link", "a link of the run": "link"}
    (work / "link").symlink_to(work.parent / "secrets")
    (work / "runs/old/link").symlink_to(work.parent / "secrets")
    settle(work, root=root.get(way, str(work.parent / "secrets")))
    with untouched(work.parent / "secrets"):
        found = mmsa(work, "predict", "--run", "old", "--split", "train", code=2)
    assert SECRET not in found.output
    assert found.output.count("is outside the working folder: not read.") == 1
    assert "give --data DIR, or --allow-outside" in found.output
    found = mmsa(work, "predict", "--run", "old", "--split", "train", "--allow-outside", code=3)
    assert SECRET in found.output


@pytest.mark.parametrize(
    "verb",
    [
        ("report", "old", "--out", "page.html", "--force"),
        ("evaluate", "--run", "old", "--labels", "posts/answers.csv"),
        ("compare", "old", "old-ce", "--grouped"),
    ],
)
def test_no_verb_quotes_or_notes_anything_outside(work: Path, verb: tuple[str, ...]) -> None:
    secrets = work.parent / "secrets"
    settle(work, root=str(secrets), cache=str(secrets / "store"))
    with untouched(secrets):
        code = 0 if verb[0] == "report" else 2
        found = mmsa(work, *verb, code=code)
    assert SECRET not in found.output
    assert f"The run's data folder {secrets} is outside" in found.output
    assert "To use it, name it in mmsa.toml, give --data DIR, or --allow-outside" in found.output
    assert f"The run's store {secrets}/store is outside" in found.output
    assert "To use it, name it in mmsa.toml, give --cache DIR, or --allow-outside" in found.output
    mmsa(work, *verb, "--data", "posts", "--cache", "cache")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "report", "compare", "export"])
def test_verbs_of_a_run_have_the_flags_that_the_cure_names(verb: str, tmp_path: Path) -> None:
    help_text = mmsa(tmp_path, verb, "--help").output
    assert {"--data", "--cache", "--allow-outside"} <= set(help_text.split())


def test_the_store_of_a_run_gets_no_notes_outside(work: Path) -> None:
    settle(work, root=str(work / "posts"), cache=str(work.parent / "secrets/store"))
    with untouched(work.parent / "secrets"):
        mmsa(work, "evaluate", "--run", "old", "--labels", "posts/answers.csv")


def test_an_encoder_outside_is_refused_where_it_is_needed(work: Path) -> None:
    outside = work.parent / "secrets/tiny-bert"
    settle(work, root=str(work / "posts"), text=str(outside))
    found = mmsa(work, "predict", "--run", "old", *POST, code=4)
    assert f"The encoder [text] model {outside} is outside the working folder" in found.output
    assert "name it in mmsa.toml, or give --allow-outside" in found.output
    found = mmsa(work, "predict", "--run", "old", *POST, "--allow-outside")
    (row,) = json.loads(found.stdout)
    assert row["probabilities"] == pytest.approx(WANT, abs=1e-6)
    # The user's own settings name it.
    (work / "mmsa.toml").write_text(f'[text]\nmodel = "{outside}"\n')
    assert json.loads(mmsa(work, "predict", "--run", "old", *POST).stdout) == [row]


@pytest.mark.parametrize("section", ["text", "image", "joint"])
def test_every_path_of_an_encoder_counts(work: Path, section: str) -> None:
    key = "weights" if section == "image" else "model"
    settings = Settings.model_validate({section: {key: str(work.parent / "secrets/tiny-bert")}})
    policy = PathPolicy(Settings(), work / "runs/old")
    modality = "text" if section == "joint" else section
    with pytest.raises(ModelError, match=rf"\[{section}\] {key} .* is outside the working folder"):
        resolve_encoder(settings, modality, path_policy=policy)
    assert resolve_local_encoder(settings, modality, policy) is None


def test_a_run_does_not_allow_itself(work: Path) -> None:
    settle(work, root=str(work.parent / "secrets"))
    path = work / "runs/old/config.json"
    config = json.loads(path.read_text())
    config["settings"]["allow_outside"] = True
    path.write_text(json.dumps(config))
    assert SECRET not in mmsa(work, "predict", "--run", "old", "--split", "train", code=2).output


def test_what_the_user_names_is_used(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = work.parent / "away"
    shutil.move(work / "posts", away)
    settle(work, root=str(away))
    split = ("predict", "--run", "old", "--split", "test", "--json")
    mmsa(work, *split, code=2)
    said = mmsa(work, *split, "--data", str(away))
    rows = json.loads(said.stdout)
    assert len(rows) == 12
    assert "outside" not in said.stderr
    (work / "mmsa.toml").write_text(f'[data]\nroot = "{away}"\n')
    assert json.loads(mmsa(work, *split).stdout) == rows
    (work / "mmsa.toml").unlink()
    monkeypatch.setenv("MMSA_ALLOW_OUTSIDE", "yes")
    assert json.loads(mmsa(work, *split).stdout) == rows
    monkeypatch.delenv("MMSA_ALLOW_OUTSIDE")
    assert len(load_model("old", allow_outside=True).session.samples("test")) == 12


def test_a_moved_project_and_an_export_elsewhere_are_themselves(work: Path) -> None:
    settle(work, root="../../posts", text="../../tiny-bert")
    moved = work.rename(work.parent / "moved")
    with contextlib.chdir(moved):
        (row,) = json.loads(mmsa(moved, "predict", "--run", "old", *POST).stdout)
        assert row["probabilities"] == pytest.approx(WANT, abs=1e-6)
        export = shutil.move(moved / "export", moved.parent / "export")
        shutil.copy(moved / "runs/old/model.safetensors", export)
        shutil.copytree(moved / "tiny-bert", Path(export) / "encoders/text/tiny-bert")
        (again,) = json.loads(mmsa(moved, "predict", "--run", str(export), *POST).stdout)
    assert again["probabilities"] == pytest.approx(WANT, abs=1e-6)


def test_what_a_store_was_told_leads_out_for_nobody(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = work.parent / "secrets"
    for root in (str(secrets), "../../secrets"):
        about = StoredSplit(
            split="train",
            layout="report",
            classes=("positive", "neutral", "negative"),
            told={"data": {"root": root}},
        )
        samples = SampleTable.from_samples(read_split(work / "posts", "train"))
        write_split(split_path(work / "cache", "train"), about, samples)
        settings = Settings.model_validate({"cache": {"dir": str(work / "cache")}})
        for allow, want in ((False, None), (True, secrets)):
            own = settings.model_copy(update={"allow_outside": allow})
            policy = PathPolicy(own, work / "cache")
            found = use_stored_data_settings(own, Store(work / "cache"), policy, extracting=False)
            assert found.data.root == want
        assert capsys.readouterr().err.count("The store's data folder") == 1
    identity = EncoderIdentity.of_fields({"modality": "text", "encoder": "tiny-bert"})
    told = {"text": {"model": str(secrets / "tiny-bert"), "weights": "random"}}
    encoder = StoredEncoder.of(identity, ("default",), told)
    told_settings = use_stored_encoder(settings, "text", encoder)
    with pytest.raises(ModelError, match="is outside the working folder"):
        resolve_encoder(told_settings, "text", path_policy=PathPolicy(settings, work / "cache"))


@pytest.mark.parametrize("name", ["train.txt", "pairs"])
def test_label_files_and_pairs_stay_in_the_data_folder(work: Path, name: str) -> None:
    away = work.parent / "secrets" / name
    shutil.rmtree(work.parent / "secrets" / "store")
    if name == "pairs":
        shutil.copytree(work / "posts/pairs", away)
        shutil.rmtree(work / "posts/pairs")
    else:
        (work / "posts" / name).unlink()
    (work / "posts" / name).symlink_to(away)
    with pytest.raises(DataError, match=f"{name}: leads out of the data folder") as error:
        read_split(work / "posts", "train")
    assert SECRET not in str(error.value)
    inside = work / "posts/inner"
    shutil.move(work.parent / "secrets" / name, inside)
    if name == "train.txt":
        inside.write_text("guid,tag\n1,neutral\n")
    (work / "posts" / name).unlink()
    (work / "posts" / name).symlink_to("inner")
    assert read_split(work / "posts", "train")


def test_names_that_are_no_paths_stay_names(work: Path) -> None:
    policy = PathPolicy(Settings(), work)
    for name in ("bert-base-uncased", "x" * 5000, "a\0b"):
        settings = Settings.model_validate({"text": {"model": name}})
        assert resolve_local_encoder(settings, "text", policy) is None
    assert not policy.allows(Path("a\0b"))
