"""What extraction was told need not be told again; what contradicts it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.pairs import make_pairs
from tests.support.small_work import QUICK, mmsa

TEXT = "好 sun"


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text model is not in the working folder; the user knows."""
    monkeypatch.setenv("MMSA_ALLOW_OUTSIDE", "1")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """A folder without mmsa.toml: extraction was told everything by flags."""
    folder = tmp_path_factory.mktemp("told")
    make_pairs(folder / "posts", 72)
    (folder / "posts/pairs/3.txt").write_bytes(TEXT.encode("gb18030"))
    (folder / "posts/pairs/4.txt").write_text("")
    extract(folder, text_model)
    return folder


def extract(folder: Path, text_model: Path, image_model: str = "mobilenetv2_035") -> None:
    flags = (
        *("--data", "posts", "--encoding", "gb18030", "--allow-empty-text"),
        *("--variants", "none", "--tokens", "none", "--text-model", str(text_model)),
        *("--text-weights", "random", "--image-model", image_model, "--image-weights", "random"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_TEXT_MAX_TOKENS", "16")
        mmsa(folder, "extract", "--split", "all", *flags)


def test_stage_two_needs_none_of_it(told: Path, text_model: Path) -> None:
    said = mmsa(told, "train", "--name", "r", *QUICK).stderr
    assert f"text encoder: {text_model.name} (random weights), as in cache." in said
    assert "image encoder: mobilenetv2_035 (random weights), as in cache." in said
    kept = json.loads((told / "runs/r/config.json").read_text())["settings"]
    assert (kept["extract"]["variants"], kept["extract"]["tokens"]) == ("none", "none")
    assert (kept["data"]["encoding"], kept["data"]["allow_empty_text"]) == ("gb18030", True)
    assert (kept["text"]["model"], kept["text"]["max_tokens"]) == (str(text_model), 16)
    assert (kept["image"]["model"], kept["image"]["weights"]) == ("mobilenetv2_035", "random")
    shown = json.loads(mmsa(told, "cache", "show", "3", "--json").stdout)
    assert shown["text"] == TEXT
    assert [row["variant"] for row in shown["caches"][0]["rows"]] == [0]
    live = ("predict", "--run", "r", "--text", TEXT, "--image", "posts/pairs/3.jpg", "--json")
    split = ("predict", "--run", "r", "--split", "train", "--json")
    (found,) = json.loads(mmsa(told, *live).stdout)
    cached = next(row for row in json.loads(mmsa(told, *split).stdout) if row["guid"] == "3")
    assert found["probabilities"] == pytest.approx(cached["probabilities"], abs=2e-3)
    lacking = mmsa(told, "train", "--set", "level=tokens", *QUICK, code=2).stderr
    assert "was extracted with tokens = 'none'" in lacking


def test_extraction_without_flags_finds_everything_there(told: Path) -> None:
    records = json.loads(mmsa(told, "extract", "--split", "all", "--json").stdout)
    assert len(records) == 4
    assert {r["rows_computed"] for r in records} == {0}
    assert all(r["rows"] == r["rows_already_there"] + r["rows_shared"] for r in records)


def test_the_seed_of_the_copies_is_told_once(tmp_path: Path, text_model: Path) -> None:
    make_pairs(tmp_path / "posts", 24)
    flags = ("--data", "posts", "--variants", "1", "--text-model", str(text_model))
    flags += (
        "--text-weights",
        "random",
        "--image-model",
        "mobilenetv2_035",
        "--image-weights",
        "random",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_TEXT_MAX_TOKENS", "16")
        mmsa(tmp_path, "extract", "--seed", "3", *flags)
    again = json.loads(mmsa(tmp_path, "extract", "--json").stdout)
    assert [record["rows_computed"] for record in again] == [0, 0]
    other = json.loads(mmsa(tmp_path, "extract", "--seed", "4", "--json").stdout)
    assert all(record["rows_computed"] for record in other), "other copies, other random weights"


def test_a_key_beside_the_model_makes_features_of_the_same_model(
    tmp_path: Path, told: Path, text_model: Path
) -> None:
    for name in ("posts", "cache"):
        shutil.copytree(told / name, tmp_path / name)
    before = {folder.name for folder in (told / "cache/features/text").iterdir()}
    found = json.loads(mmsa(tmp_path, "extract", "--layer", "0", "--json").stdout)
    assert [record["encoder"].partition(" ")[0] for record in found] == [
        text_model.name,
        "mobilenetv2_035",
    ]
    assert [record["rows_computed"] > 0 for record in found] == [True, False]
    assert Path(found[0]["directory"]).name not in before


def test_which_precision_is_used_is_said(tmp_path: Path, told: Path) -> None:
    for name in ("posts", "cache"):
        shutil.copytree(told / name, tmp_path / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_EXTRACT_COMPUTE", "bfloat16")
        mmsa(tmp_path, "extract", "--split", "all")
        said = mmsa(tmp_path, "train", "--name", "half", *QUICK).stderr
    assert said.count("(random weights) (bfloat16, cpu), as in cache.") == 2
    said = mmsa(tmp_path, "train", "--name", "one", *QUICK).stderr
    assert said.count(", cpu), as in cache.") == 2


@pytest.mark.parametrize(
    ("flags", "variables", "said", "code"),
    [
        (("--encoding", "utf-8"), {}, "[data] encoding: 'utf-8' is set|with 'gb18030'", 2),
        ((), {"EXTRACT_VARIANTS": "2"}, "[extract] variants: 2 is set|with 'none'", 2),
        ((), {"DATA_ALLOW_EMPTY_TEXT": "no"}, "allow_empty_text: False is set|with True", 2),
        ((), {"DATA_CLASSES": "a,b"}, "classes: ('a', 'b') is set|('positive', 'neu", 2),
        (("--tokens", "keep"), {}, "tokens: 'keep' is set, the store has 'none'", 4),
        (("--text-model", "other"), {}, "[text] model: 'other' is set|the store has '/", 4),
        (
            ("--image-model", "mobilenetv2_050"),
            {},
            "model: 'mobilenetv2_050' is set|has 'mobilenetv2_035'",
            4,
        ),
        (("--image-layer", "2"), {}, "[image] layer: 2 is set, the store has 'last'", 4),
    ],
)
def test_what_contradicts_the_store_is_refused_with_both_values(
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    variables: dict[str, str],
    said: str,
    code: int,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MMSA_{name}", value)
    failed = mmsa(told, "train", *flags, code=code).stderr
    assert all(part in failed for part in said.split("|")), failed
    assert "mmsa extract" in failed
    assert not (told / "runs/default").exists()


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        (("--encoding", "gb18030", "--image-model", "mobilenetv2_035", "--tokens", "none"), {}),
        ((), {"DATA_CLASSES": "positive,neutral,negative", "EXTRACT_VARIANTS": "none"}),
    ],
)
def test_what_agrees_with_the_store_may_be_said_again(
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MMSA_{name}", value)
    mmsa(told, "train", "--summary", *flags)


def test_of_several_encoders_one_must_be_named(
    told: Path, tmp_path: Path, text_model: Path
) -> None:
    for name in ("posts", "cache"):
        shutil.copytree(told / name, tmp_path / name)
    extract(tmp_path, text_model, "mobilenetv2_050")
    for command in (("train", "--name", "no"), ("search", "--trials", "1"), ("extract",)):
        failed = mmsa(tmp_path, *command, code=2).stderr
        assert "The store holds 2 image encoders that fit." in failed
        assert "  - mobilenetv2_035 (random weights) (" in failed
        assert "  - mobilenetv2_050 (random weights) (" in failed
        assert "Choose with --image-model" in failed
    for model in ("mobilenetv2_035", "mobilenetv2_050"):
        mmsa(tmp_path, "train", "--name", model, "--image-model", model, *QUICK)
        config = json.loads((tmp_path / f"runs/{model}/config.json").read_text())
        assert config["encoder_fields"]["image"]["encoder"] == model
        assert config["settings"]["image"]["model"] == model
    predicted = mmsa(tmp_path, "predict", "--run", "mobilenetv2_035", "--split", "test", "--json")
    assert len(json.loads(predicted.stdout)) == 12, "a run remembers its encoder"
