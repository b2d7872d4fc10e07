"""Exports of hostile runs: no file but a model's is copied, nothing but an export is replaced."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose.export.encoder_files import copy_encoder
from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import MODEL_FILE
from tests.support.data_folders import noise, saved
from tests.support.fuzzing import (
    EXAMPLES,
    ODD,
    Random,
    altered,
    json_bytes,
    mutated,
    series,
    tensors,
)
from tests.support.made_up_run import change
from tests.support.small_work import QUICK, call, make_work
from tests.support.tally import Tally

SECRET = "a-password"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("work"), text_model)
    call(folder, "train", "--name", "run", *QUICK)
    call(folder, "export", "run", "--to", "model")
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's folder of settings, outside the working folder."""
    folder = tmp_path / "home" / ".docker"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"auths": {"hub": SECRET}}))
    (folder / "token.txt").write_text(SECRET)
    return folder


def hostile(work: Path, name: str, section: str, **values: object) -> None:
    """A copy of the run whose settings name something else."""
    shutil.copytree(work / "runs/run", work / "runs" / name, dirs_exist_ok=True)
    config = work / "runs" / name / "config.json"
    settings = json.loads(config.read_text())["settings"]
    settings[section] |= values
    change(config, settings=settings)


def refused(work: Path, *arguments: str, code: int = 4) -> str:
    """What an export said that made nothing."""
    said = call(work, "export", *arguments, "--to", "stolen", code=code)
    assert not list(work.glob("*stolen*"))
    return said


@pytest.mark.parametrize("allowed", [(), ("--allow-outside",)])
def test_a_run_that_names_a_folder_of_secrets(
    work: Path, outside: Path, allowed: tuple[str, ...]
) -> None:
    hostile(work, "far", "text", model=str(outside))
    said = refused(work, "far", *allowed)
    if allowed:
        assert f"{outside} is not copied: its model_type is 'None'" in said
    else:
        assert f"The run's text model {outside} is outside the working folder" in said
        assert "--allow-outside" in said


def test_a_run_that_names_a_file_of_secrets(work: Path, outside: Path) -> None:
    hostile(work, "file", "image", weights=str(outside / "token.txt"))
    assert "is outside the working folder" in refused(work, "file")
    assert "is no file of weights" in refused(work, "file", "--allow-outside")


def test_a_model_outside_is_copied_when_that_is_confirmed(
    work: Path, tmp_path: Path, text_model: Path
) -> None:
    model = tmp_path / text_model.name
    shutil.copytree(text_model, model)
    (model / "id_rsa").write_text(SECRET)
    (model / "notes.txt").write_text(SECRET)
    (model / "1_Pooling").mkdir()
    hostile(work, "elsewhere", "text", model=str(model))
    assert "--allow-outside" in refused(work, "elsewhere")
    call(work, "export", "elsewhere", "--to", "taken", "--allow-outside")
    copied = sorted(path.name for path in (work / "taken/encoders/text" / model.name).iterdir())
    assert copied == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    shutil.rmtree(work / "taken")


def test_no_link_is_copied(tmp_path: Path, outside: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "vocab.txt").symlink_to(outside / "token.txt")
    with pytest.raises(ModelError, match=r"no link is copied \(vocab.txt\)"):
        copy_encoder(model, tmp_path / "export" / "text")
    (model / "vocab.txt").unlink()
    (model / "config.json").rename(tmp_path / "c.json")
    (model / "config.json").symlink_to(tmp_path / "c.json")
    with pytest.raises(ModelError, match="is a link"):
        copy_encoder(model, tmp_path / "export" / "text")
    weights = tmp_path / "w.safetensors"
    weights.symlink_to(outside / "token.txt")
    with pytest.raises(ModelError, match="or a link: it is not copied"):
        copy_encoder(weights, tmp_path / "export" / "image")
    assert not [path for path in (tmp_path / "export").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../w.safetensors", "w.bin", "/etc/passwd", None, "gone"])
def test_an_index_names_shards_alone(tmp_path: Path, name: object) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    shard = "model-00001-of-00001.safetensors"
    (model / shard).write_bytes(b"weights")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard, "b": name}}))
    with pytest.raises(ModelError, match="names weights that are no safetensors file of the"):
        copy_encoder(model, tmp_path / "export" / "text")
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    copied = copy_encoder(model, tmp_path / "export" / "text")
    assert {path.name for path in copied.iterdir()} == {"config.json", shard, index.name}
    (model / "vocab-of-keys.txt").write_text(SECRET)
    with pytest.raises(ModelError, match=r"files of unknown names \(vocab-of-keys.txt\)"):
        copy_encoder(model, tmp_path / "again" / "text")


# What is replaced


@pytest.fixture
def target(work: Path) -> Path:
    shutil.rmtree(work / "mine", ignore_errors=True)
    shutil.copytree(work / "model", work / "mine")
    return work / "mine"


def test_force_replaces_an_export_alone(work: Path, target: Path, outside: Path) -> None:
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_text("mine")
    (target / "notes.md").write_text("mine")
    (target / "encoders" / "text" / "thesis.tex").write_text("mine")
    (target / "encoders" / "keys").symlink_to(outside)
    (target / "model.onnx").symlink_to(outside / "token.txt")
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    said = call(work, "export", "run", "--to", "mine", "--force", code=2)
    assert "holds what mmsa export did not write: nothing was replaced." in said
    names = [".git/", "encoders/keys/", "encoders/text/thesis.tex", "model.onnx", "notes.md"]
    assert [line[4:] for line in said.splitlines() if line.startswith("  - ")] == names
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert (outside / "token.txt").read_text() == SECRET


def test_an_export_is_replaced_whole(work: Path, target: Path) -> None:
    (target / "README.md").write_text("edited")
    call(work, "export", "run", "--to", "mine", "--force")
    assert (target / "README.md").read_text().startswith("---\n")
    assert not list(work.glob(".mine.*"))


def test_nothing_is_exported_through_a_link(work: Path, target: Path, outside: Path) -> None:
    link = work / "linked"
    link.symlink_to(outside)
    for to in ("linked", "linked/deep/model"):
        said = call(work, "export", "run", "--to", to, "--force", code=2)
        assert "linked is a link" in said
    link.unlink()
    for planted in (".mine.unfinished", ".mine.lock"):
        (work / planted).symlink_to(outside)
        call(work, "export", "run", "--to", "mine", "--force", code=2)
        (work / planted).unlink()
    assert sorted(path.name for path in outside.iterdir()) == ["config.json", "token.txt"]


@EXAMPLES
@pytest.mark.parametrize("name", ["config.json", MODEL_FILE])
def test_fuzzed_exports(work: Path, tmp_path: Path, name: str, examples: int, tally: Tally) -> None:
    folder = tmp_path / "model"
    shutil.copytree(work / "model", folder)
    data = (work / "model" / name).read_bytes()

    def make(chosen: Random) -> bytes:
        if name == MODEL_FILE:
            return tensors(chosen, data)
        return json_bytes(chosen, json.loads(data))

    def load(content: bytes) -> None:
        (folder / name).write_bytes(content)
        with contextlib.chdir(tmp_path):
            model = load_model(folder)
            assert model.classes

    tally(f"fuzzed {name} of exports", examples, series(examples, make, load))


@EXAMPLES
def test_fuzzed_posts(work: Path, tmp_path: Path, examples: int, tally: Tally) -> None:
    """Texts of any characters beside damaged pictures, encoded and predicted by an export."""
    picture = tmp_path / "odd.jpg"
    pictures = [saved(noise(0)), saved(noise(1), "PNG"), saved(noise(2), "WEBP")]
    with contextlib.chdir(work):
        model = load_model("model")

    def make(chosen: Random) -> tuple[Any, Any, bytes]:
        letters = [chr(chosen.randrange(0x110000)) for _ in range(chosen.choice((0, 1, 9, 300)))]
        text = "".join(letters) if chosen.random() < 0.7 else chosen.choice(ODD)
        path = picture if chosen.random() < 0.8 else chosen.choice((None, "odd.jpg", tmp_path))
        data = chosen.choice(pictures)
        return text, path, mutated(chosen, [data]) if chosen.random() < 0.5 else data

    def predict(content: tuple[Any, Any, bytes]) -> None:
        picture.write_bytes(content[2])
        found = model.predict(*content[:2])
        assert math.isclose(sum(found.values()), 1, abs_tol=1e-6)

    tally("fuzzed posts of an export", examples, series(examples, make, predict))


@pytest.mark.faults
def test_fuzzed_encoders_of_exports(work: Path, tmp_path: Path, tally: Tally) -> None:
    """What an export says of its encoders, built and run."""
    folder, picture = tmp_path / "model", tmp_path / "a.jpg"
    shutil.copytree(work / "model", folder)
    picture.write_bytes(saved(noise(0)))
    config = json.loads((folder / "config.json").read_text())

    def make(chosen: Random) -> bytes:
        of = chosen.choice(("text", "image", "encoder_fields"))
        changed = config["settings"] if of != "encoder_fields" else config
        changed = changed | {of: altered(chosen, changed[of])}
        whole = config | {"settings": changed} if of != "encoder_fields" else changed
        return json.dumps(whole).encode()

    def predict(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        with contextlib.chdir(tmp_path):
            found = load_model(folder).predict("good day", picture)
        assert math.isclose(sum(found.values()), 1, abs_tol=1e-6)

    tally("fuzzed encoders of exports", 5000, series(5000, make, predict))
