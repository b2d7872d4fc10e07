"""Several cached encoders in one folder: extracted by name, chosen by a study, used by a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from mmsa_cache.cli.main import app
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import BankChoice, FeatureBank
from mmsa_cache.features.rows import sample_rows
from mmsa_cache.store.encoder import ENCODER
from mmsa_cache.store.index import INDEX
from tests.support.pairs import make_pairs

SWIN = "img_size = 64, window_size = 4, depths = [1, 1], num_heads = [1, 2]"
Mmsa = Callable[..., Result]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    make_pairs(folder / "posts", 84)
    image = 'model = "swinv2_tiny_window8_256"\nweights = "random"\nsize = 64\n'
    text = f'model = "{text_model}"\nweights = "random"\nmax_tokens = 16\n'
    (folder / "mmsa.toml").write_text(
        f'[data]\nroot = "posts"\n[text]\n{text}[image]\n{image}'
        f"kwargs = {{ {SWIN}, embed_dim = 16 }}\n[extract]\nvariants = 1\n"
        f"[encoders.wide.image]\n{image}kwargs = {{ {SWIN}, embed_dim = 24 }}\n"
        f"[encoders.alike.text]\n{text}"
    )
    (folder / "studies").mkdir()
    (folder / "studies/pair.toml").write_text(
        '[protocol]\nouter = "grouped"\nfolds = 2\n[sampler]\nkind = "random"\n'
        '[fixed]\nepochs = 2\ntext_dim = 16\nimage_dim = 16\nhead = "12"\nmodality_dropout = 0.2\n'
        '[space]\nimage_encoder = ["default", "wide"]\n'
        '[space.level]\nvalues = ["tokens"]\nwhen = { image_encoder = ["wide"] }\n'
        '[space.grid]\nvalues = [2]\nwhen = { level = ["tokens"] }\n'
    )
    return folder


@pytest.fixture
def mmsa(work: Path, monkeypatch: pytest.MonkeyPatch) -> Mmsa:
    """Runs a command in the folder, in this process."""
    monkeypatch.chdir(work)

    def call(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


@pytest.fixture
def extracted(work: Path, mmsa: Mmsa) -> list[dict[str, Any]]:
    kept = work / "records.json"
    if not kept.exists():
        kept.write_text(mmsa("extract", "--split", "all", "--encoders", "all", "--json").stdout)
    records: list[dict[str, Any]] = json.loads(kept.read_text())
    return records


def test_a_missing_cache_is_named_with_the_command_that_makes_it(mmsa: Mmsa) -> None:
    mmsa("extract")  # of the default encoders only
    said = mmsa("train", "--set", "image_encoder=wide", code=4).stderr
    assert "cache holds no features of the image encoder 'wide'." in said
    assert "[image] kwargs: {" in said
    assert "'embed_dim': 24" in said
    assert "'embed_dim': 16" in said
    assert "→ Run mmsa extract --encoders wide." in said
    said = mmsa("train", "--set", "image_encoder=wied", code=2).stderr
    assert "mmsa.toml has no image encoder 'wied'" in said
    assert "Known: default, wide" in said
    assert "no encoder 'wied'" in mmsa("extract", "--encoders", "wide,wied", code=2).stderr


def test_what_two_names_have_in_common_is_extracted_once(
    extracted: list[dict[str, Any]], work: Path, mmsa: Mmsa
) -> None:
    names = [(r["name"], r["split"], r["modality"]) for r in extracted]
    assert names == [
        *(("default", split, m) for split in ("train", "test") for m in ("text", "image")),
        ("wide", "train", "image"),
        ("wide", "test", "image"),
        ("alike", "train", "text"),
        ("alike", "test", "text"),
    ]
    folders = {key: r["directory"] for key, r in zip(names, extracted, strict=True)}
    assert folders["alike", "train", "text"] == folders["default", "train", "text"]
    assert folders["wide", "train", "image"] != folders["default", "train", "image"]
    assert [r["rows_already_there"] == r["rows"] for r in extracted[-2:]] == [True, True]
    assert folders["wide", "test", "image"] == folders["wide", "train", "image"]
    assert len(list((work / "cache").rglob(INDEX))) == 3
    names = json.loads((Path(work / folders["alike", "train", "text"]) / ENCODER).read_text())
    assert names["names"] == ["default", "alike"]
    assert json.loads(mmsa("cache", "prune", "--stale", "--json").stdout) == []


def test_a_study_chooses_and_its_run_remembers(
    extracted: list[dict[str, Any]], work: Path, mmsa: Mmsa
) -> None:
    import optuna

    search = ("search", "--study", "pair", "--trials", "6", "--workers", "1", "--json")
    record = json.loads(mmsa(*search).stdout)
    assert record["trials"] == {"complete": 6, "pruned": 0, "fail": 0}
    trials = optuna.load_study(
        study_name="pair", storage=f"sqlite:///{work}/studies/studies.db"
    ).trials
    settings = [trial.user_attrs["setting"] for trial in trials]
    assert {(s["image_encoder"], s["level"]) for s in settings} == {
        ("default", "pooled"),
        ("wide", "tokens"),
    }
    number = [s["image_encoder"] for s in settings].index("wide")
    mmsa("train", "--study", f"pair:{number}", "--folds", "2", "--name", "wide")
    mmsa("train", "--study", "best", "--folds", "2", "--name", "best")
    config = json.loads((work / "runs/wide/config.json").read_text())
    assert config["models"][0]["dims"] == {
        "text": 16,
        "image": 48,
        "vectors": {"text_mean": 16, "image_mean": 48},
    }
    wide = next(r["directory"] for r in extracted if r["name"] == "wide")
    assert config["features"]["image"] == {"wide": Path(wide).name}
    assert config["notes"] == [config["encoders"]["text"], config["encoders"]["image"]]
    # Only what the run reads is opened, and what has no cache is encoded by the same encoder.
    default = next(r["directory"] for r in extracted if r["modality"] == "image")
    away = work / "images"
    shutil.move(work / default, away / "default")
    predict = ("predict", "--run", "wide", "--split", "test", "--json")
    cached = mmsa(*predict)
    assert "Encoding" not in cached.stderr
    shutil.move(work / wide, away / "wide")
    uncached = mmsa(*predict)
    assert "Encoding" in uncached.stderr
    live = json.loads(uncached.stdout)
    for name, folder in (("default", default), ("wide", wide)):
        shutil.move(away / name, work / folder)
    for one, two in zip(json.loads(cached.stdout), live, strict=True):
        assert one["probabilities"] == pytest.approx(two["probabilities"], abs=2e-3)
    pair = [work / f"posts/pairs/{live[0]['guid']}.{end}" for end in ("txt", "jpg")]
    post = ("--text", pair[0].read_text(), "--image", str(pair[1]))
    alone = json.loads(mmsa("predict", "--run", "wide", *post, "--json").stdout)
    want = pytest.approx(live[0]["probabilities"], abs=2e-3)
    assert alone[0]["probabilities"] == want
    half = json.loads(mmsa("predict", "--run", "wide", *post[:2], "--json").stdout)
    assert sum(half[0]["probabilities"].values()) == pytest.approx(1)
    mmsa("export", "wide", "--to", "exported")  # where the named encoder is the default one
    exported = json.loads((work / "exported/config.json").read_text())
    assert exported["settings"]["image"]["kwargs"]["embed_dim"] == 24
    assert exported["models"][0]["setting"]["image_encoder"] == "default"
    again = json.loads(mmsa("predict", "--run", "exported", *post, "--json").stdout)
    assert again == alone


def test_models_of_unlike_encoders_are_averaged(
    extracted: list[dict[str, Any]], work: Path, mmsa: Mmsa
) -> None:
    fixed = 'epochs = 1\ntext_dim = 16\nimage_dim = 16\nhead = ""\nimage_encoder = '
    for name in ("default", "wide"):
        (work / f"studies/{name}-one.toml").write_text(f'[fixed]\n{fixed}"{name}"\n')
    flags = ("--study", "wide-one", "--study", "default-one", "--folds", "1", "--outer", "grouped")
    mmsa("train", *flags, "--name", "blend")
    config = json.loads((work / "runs/blend/config.json").read_text())
    assert [model["dims"]["image"] for model in config["models"]] == [48, 32]
    assert set(config["features"]["image"]) == {"default", "wide"}
    rows = json.loads(mmsa("predict", "--run", "blend", "--split", "test", "--json").stdout)
    assert len(rows) == 12
    assert set(config["encoder_fields"]["image"]) == {"default", "wide"}
    said = mmsa("export", "blend", "--to", "blended", code=4).stderr
    assert "averages models of different encoders" in said


def test_features_are_opened_when_first_needed(
    extracted: list[dict[str, Any]], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsa_cache.features.modality import ModalityFeatures

    monkeypatch.chdir(work)
    folders = {
        (r["modality"], r["name"]): r["directory"] for r in extracted if r["split"] == "train"
    }
    opened = []

    samples = read_split(split_path(work / "cache", "train"))[1][:5]
    wanted = {m: sample_rows(samples.digests(m), [0] * 5, "none") for m in ("text", "image")}

    def open_one(modality: str, name: str) -> ModalityFeatures:
        opened.append((modality, name))
        return ModalityFeatures.open(Path(folders[modality, name]), wanted[modality])

    guids = samples.guids
    bank = BankChoice(open_one, guids, [0] * 5).bank("default", "default")
    assert opened == [("text", "default"), ("image", "default")]
    wide = bank.using("default", "wide")
    assert opened[2:] == [("image", "wide")]
    assert wide.using("default", "default") is bank
    assert wide.text is bank.text
    assert (wide.image.dim, bank.image.dim) == (48, 32)
    assert len(opened) == 3
    plain = FeatureBank(bank.text, bank.image, guids, [0] * 5)
    assert plain.using("default", "default") is plain
    with pytest.raises(SettingsError, match="one encoder a side"):
        plain.using("default", "wide")
    assert torch.equal(plain.labels, wide.labels)


def test_mistakes_in_named_encoders_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text(
        '[encoders.default.text]\nmodel = "a"\n[encoders.one.image]\nmodle = "a"\n'
        '[encoders.two.picture]\n[encoders.three]\n[encoders.four.joint]\nweights = "random"\n'
        "[encoders.five.text]\nmax_tokens = 1\n"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(folder=tmp_path, environ={})
    said = "\n".join(caught.value.problems)
    assert "write a plain name other than default and all" in said
    assert "encoders.one.image.modle: unknown key (near: model)" in said
    assert "encoders.two.picture: unknown key (valid: image, joint, text)" in said
    assert "encoders.three: write a text, an image or a joint section" in said
    assert "encoders.four: joint: name its model" in said
    assert "encoders.five.text.max_tokens" in said


def test_a_named_encoder_takes_the_place_of_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "mmsa.toml").write_text(
        '[encoders.net.image]\nmodel = "resnet18"\nweights = "weights.safetensors"\n'
        '[encoders.clip.joint]\nmodel = "org/clip"\n[joint]\nmodel = "org/other"\n'
    )
    settings = load_settings(folder=tmp_path, environ={})
    assert settings.encoder_names("text") == ("default", "clip", "vader", "ngrams")
    assert settings.encoder_names("image") == ("default", "net", "clip")
    net = settings.with_encoder("image", "net")
    assert (net.image.model, net.joint.model) == ("resnet18", None)
    assert net.image.weights == str(tmp_path / "weights.safetensors")
    assert settings.with_encoder("text", "clip").joint.model == "org/clip"
    assert settings.with_encoder("text", "default") is settings
    with pytest.raises(SettingsError, match="has no text encoder 'net'"):
        settings.with_encoder("text", "net")
