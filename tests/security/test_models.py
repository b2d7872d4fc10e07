"""Model folders and image arguments of somebody hostile: no code, nothing outside, no flood."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.encoders.image import resolve_image
from extract.encoders.text import resolve_text
from extract.encoders.tokenizer import load_tokenizer
from extract.encoders.transformer import load_model
from mmsa_cache.errors import ModelError

CPU = torch.device("cpu")
VIT = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"embed_dim": 12, "depth": 1, "num_heads": 2, "img_size": 32}
INPUT: dict[str, Any] = {"mean": None, "std": None, "size": 32, "fit": "crop", "seed": 0}


@pytest.fixture(autouse=True)
def _no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    unpickler = type("Unpickler", (pickle.Unpickler,), {"__init__": refuse})
    monkeypatch.setattr(pickle, "Unpickler", unpickler)


@pytest.fixture
def folder(tmp_path: Path, text_model: Path) -> Path:
    """A tiny BERT with weights."""
    target = tmp_path / "model"
    shutil.copytree(text_model, target)
    save_file(dict(load_model(target, 0).state_dict()), target / "model.safetensors")
    return target


def change(folder: Path, name: str, values: dict[str, Any]) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def test_a_whole_model_is_loaded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    model = load_model(folder, None)
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "timm_wrapper", "architecture": "x"}, "its model_type is 'timm_wrapper'"),
        ({"model_type": "vision-text-dual-encoder"}, "its model_type is 'vision-text"),
        ({"model_type": None}, "its model_type is 'None'"),
        ({"model_type": ["bert"]}, r"its model_type is \"\['bert'\]\""),
        (
            {"model_type": "clip", "vision_config": {"model_type": "timm_wrapper"}},
            "its vision_config asks for a 'timm_wrapper'",
        ),
        (
            {"model_type": "clip", "text_config": {"attn_implementation": "who/kernel"}},
            "the foreign kernel who/kernel",
        ),
        ({"_attn_implementation": {"": "who/kernel"}}, "the foreign kernel who/kernel"),
        ({"experts_implementation": "who/kernel"}, "the foreign kernel who/kernel"),
        (
            {"model_type": "clip", "text_config": {"auto_map": {"AutoModel": "a.B"}}},
            "asks for auto_map",
        ),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "asks for quantization_config"),
        ({"transformers_weights": "w.safetensors"}, "asks for transformers_weights"),
        ({"tokenizer_class": "RagTokenizer"}, "its tokenizer_class is 'RagTokenizer'"),
        ({"num_hidden_layers": 1 << 40}, "its num_hidden_layers is 1099511627776, more than"),
        ({"layer_norm_eps": float("inf")}, "Infinity is no finite number"),
    ],
)
@pytest.mark.parametrize("seed", [0, None])
def test_what_is_no_plain_model_is_refused(
    folder: Path, config: dict[str, Any], said: str, seed: int | None
) -> None:
    change(folder, "config.json", config)
    with pytest.raises(ModelError, match=said):
        load_model(folder, seed)
    with pytest.raises(ModelError, match=said):
        resolve_text(str(folder), "pretrained", 16, 0).load(CPU)


def test_adapters_and_other_files_are_not_looked_at(folder: Path, tmp_path: Path) -> None:
    """transformers would load the base model of ``adapter_config.json``, and chat templates."""
    before = load_model(folder, None).state_dict()
    change(folder, "adapter_config.json", {"base_model_name_or_path": str(tmp_path / "x")})
    change(folder, "generation_config.json", {"auto_map": {"x": "y.Z"}})
    change(folder, "config.json", {"_name_or_path": "who/else"})
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "chat_template.jinja").symlink_to(tmp_path / "nothing")
    after = load_model(folder, None).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    load_tokenizer(folder)


def test_joint_models_that_do_not_run_are_an_error(folder: Path) -> None:
    side = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 99}
    text = side | {"output_hidden_states": {"a": 1}}
    config = {"model_type": "metaclip_2", "text_config": text, "vision_config": side}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not run on token ids and a mask alone"):
        resolve_text(str(folder), "random", 16, 0, joint=True).load(CPU)


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral", "ibert", "xlnet", "roc_bert"])
def test_usual_kinds_of_text_models_run(folder: Path, kind: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    sizes |= {
        "num_key_value_heads": 2,
        "d_model": 16,
        "n_layer": 1,
        "n_head": 2,
        "d_inner": 32,
        "intermediate_size": 32,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "head_dim": 8, **sizes}))
    resolve_text(str(folder), "random", 16, 0).load(CPU)


# Weights


@pytest.mark.parametrize(
    "name", ["../w.bin", "w.bin", "sub/w.safetensors", "../w.safetensors", "/w.safetensors", "", 3]
)
def test_an_index_names_safetensors_of_its_folder(folder: Path, name: object) -> None:
    """The decoy is what would have been hashed."""
    weights = folder / "model.safetensors"
    weights.rename(folder / "decoy.safetensors")
    for place in (folder.parent / "w.bin", folder / "w.bin", folder.parent / "w.safetensors"):
        place.write_bytes((folder / "decoy.safetensors").read_bytes())
    index = {"weight_map": {"embeddings.word_embeddings.weight": name}}
    change(folder, "model.safetensors.index.json", index)
    with pytest.raises(ModelError, match="names weights that are no safetensors file of the"):
        resolve_text(str(folder), "pretrained", 16, 0)
    with pytest.raises(ModelError, match="names weights that are no safetensors file of the"):
        load_model(folder, None)


def test_weights_in_parts_are_loaded_and_identify_the_model(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / part)
    index = {name: part for part, own in parts.items() for name in own}
    change(folder, "model.safetensors.index.json", {"weight_map": index})
    loaded = load_model(folder, None).state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    first = resolve_text(str(folder), "pretrained", 16, 0).identity
    (folder / "c.safetensors").write_bytes((folder / "b.safetensors").read_bytes())
    second = resolve_text(str(folder), "pretrained", 16, 0).identity
    swapped = {name: part.replace("b.", "c.") for name, part in index.items()}
    change(folder, "model.safetensors.index.json", {"weight_map": swapped})
    third = resolve_text(str(folder), "pretrained", 16, 0).identity
    assert len({str(found.fields["weights"]) for found in (first, second, third)}) == 3


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_links_do_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ModelError, match=f"{name} is a link that leads out of the model folder"):
        resolve_text(str(folder), "pretrained", 16, 0)


def test_links_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "models--who--what"
    snapshot = place / "snapshots/0123"
    shutil.copytree(folder, place / "blobs")
    snapshot.mkdir(parents=True)
    for path in (place / "blobs").iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs", path.name))
    resolve_text(str(snapshot), "pretrained", 16, 0).load(CPU)


def test_pipes_are_not_opened(folder: Path) -> None:
    import os

    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).rename(folder / "kept")
        os.mkfifo(folder / name)
        with pytest.raises(ModelError, match=r"holds no config.json|is no regular file"):
            resolve_text(str(folder), "pretrained", 16, 0)
        (folder / name).unlink()
        (folder / "kept").rename(folder / name)


def _missing(state: dict[str, torch.Tensor]) -> None:
    del state["encoder.layer.0.attention.self.query.weight"]


def _another_shape(state: dict[str, torch.Tensor]) -> None:
    state["embeddings.word_embeddings.weight"] = torch.zeros(3, 16)


def _another_prefix(state: dict[str, torch.Tensor]) -> None:
    for name in list(state):
        state[f"other.{name}"] = state.pop(name)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_missing, "1 of its weights are missing or of another shape: encoder.layer.0.attention"),
        (_another_shape, "missing or of another shape: embeddings.word_embeddings.weight"),
        (_another_prefix, r"weights are missing or of another shape: embeddings\..*, …"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(
    folder: Path, damage: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    state = load_file(folder / "model.safetensors")
    damage(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        load_model(folder, None)


def test_a_pooler_that_is_not_read_may_be_missing(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if "pooler" not in name}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors")
    load_model(folder, None)


# Tokenizers


@pytest.mark.parametrize("file", ["../outside.json", "/etc/passwd", "sub/tokenizer.json"])
def test_tokenizers_of_other_folders_are_refused(folder: Path, file: str) -> None:
    shutil.copy(folder / "tokenizer.json", folder.parent / "outside.json")
    change(folder, "tokenizer_config.json", {"fast_tokenizer_files": [file]})
    with pytest.raises(ModelError, match=r"tokenizer_config.json names files outside the folder"):
        load_tokenizer(folder)


@pytest.mark.parametrize("settings", ["tokenizer_config.json", "special_tokens_map.json"])
def test_paths_in_a_tokenizers_settings_are_not_followed(folder: Path, settings: str) -> None:
    """Old models of the hub name their maker's files, which were never read."""
    plain = load_tokenizer(folder)("a good day")["input_ids"]
    secret = folder.parent / "secret.json"
    secret.write_text("not to be read")
    names = ("vocab_file", "tokenizer_file", "gguf_file", "special_tokens_map_file", "spm_file")
    change(folder, settings, {name: str(secret) for name in names})
    change(folder, settings, {"auto_map": {"AutoTokenizer": ["a.B", "a.B"]}, "sp_model_kwargs": {}})
    assert load_tokenizer(folder)("a good day")["input_ids"] == plain


@pytest.mark.parametrize("token", ["sea", "[PAD]"])
def test_tokens_that_a_model_has_not(folder: Path, token: str) -> None:
    """On a GPU such a number would end all use of it; that of the padding is never looked at."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer["added_tokens"] = [
        of | {"id": size if of["content"] == token else of["id"]}
        for of in tokenizer["added_tokens"]
    ]
    vocabulary[token] = size
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder = resolve_text(str(folder), "pretrained", 16, 0).load(CPU)
    texts = ["a day", "the sea of good days"]
    if token == "[PAD]":
        assert encoder.encode(encoder.prepare(texts)).tokens.isfinite().all()
        return
    with pytest.raises(ModelError, match=f"its tokenizer gives token {size}, its model knows"):
        encoder.prepare(texts)


def test_tokenizers_of_other_kinds_are_refused(folder: Path) -> None:
    change(folder, "tokenizer_config.json", {"tokenizer_class": "MistralCommonBackend"})
    with pytest.raises(ModelError, match="its tokenizer_class is 'MistralCommonBackend'"):
        load_tokenizer(folder)


# Sizes


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 2_000_000, "hidden_size": 384},
        {"intermediate_size": 4_000_000, "hidden_size": 4096},
        {"max_position_embeddings": 4_000_000, "hidden_size": 4096},
    ],
)
@pytest.mark.parametrize("seed", [0, None])
def test_sizes_are_bounded_before_memory_is_taken(
    folder: Path, sizes: dict[str, int], seed: int | None
) -> None:
    change(folder, "config.json", sizes)
    with pytest.raises(ModelError, match="takes more memory than it may"):
        load_model(folder, seed)


def test_the_number_of_layers_is_bounded(folder: Path) -> None:
    change(folder, "config.json", {"num_hidden_layers": 4_000_000})
    with pytest.raises(ModelError, match="has more than 10000 tensors"):
        load_model(folder, 0)


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        (VIT, {"embed_dim": 60_000, "num_heads": 2}),
        (VIT, {"img_size": 32, "patch_size": 1, "embed_dim": 1 << 16, "depth": 1, "num_heads": 1}),
        ("convnext_tiny", {"dims": [60_000] * 4}),
        ("resnet18", {"base_width": 64, "stem_width": 60_000, "stem_type": "deep"}),
    ],
)
def test_image_arguments_are_bounded_before_memory_is_taken(
    model: str, kwargs: dict[str, Any]
) -> None:
    spec = resolve_image(model, "random", kwargs, **INPUT)
    with pytest.raises(ModelError, match=r"takes more memory than it may|more than 10000 tensors"):
        spec.load(CPU)


@pytest.mark.parametrize("value", [1 << 40, [1, 1e999], -(1 << 40)])
def test_numbers_in_image_arguments_are_bounded(value: object) -> None:
    with pytest.raises(ModelError, match=r"kwargs: depth is .*, more than 65536"):
        resolve_image(VIT, "random", {"depth": value}, **INPUT)


def test_sides_of_pictures_are_bounded() -> None:
    with pytest.raises(ModelError, match="the side of its input is 100000 pixels"):
        resolve_image(VIT, "random", {}, **{**INPUT, "size": 100_000})


@pytest.mark.parametrize(
    "name",
    [
        *("checkpoint_path", "pretrained_cfg", "pretrained_strict", "cache_dir", "features_only"),
        *("feature_cfg", "model_cfg", "kwargs_filter", "scriptable", "nested"),
    ],
)
def test_image_arguments_are_sizes_and_choices(name: str) -> None:
    with pytest.raises(ModelError, match=f"kwargs may not hold {name}"):
        resolve_image(VIT, "random", {name: {"file": "x.pth"}}, **INPUT)


@pytest.mark.parametrize("name", ["hf-hub:who/what", "local-dir:/tmp", "resnet50.local-dir:/tmp"])
def test_image_models_are_names_alone(name: str) -> None:
    with pytest.raises(ModelError, match="timm has no image model"):
        resolve_image(name, "random", {}, **INPUT)


def test_weights_of_an_image_model_are_its_own(tmp_path: Path) -> None:
    import timm

    state = dict(timm.create_model(VIT, num_classes=3, **SMALL).state_dict())
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    own = resolve_image(VIT, str(path), SMALL, **INPUT).load(CPU).tower._model.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)
    save_file({name: value for name, value in state.items() if "qkv" not in name}, path)
    with pytest.raises(ModelError, match="Missing key"):
        resolve_image(VIT, str(path), SMALL, **INPUT).load(CPU)


@pytest.mark.parametrize("weights", ["x" * 3000, "a\0b", "\ud800", ".safetensors"])
def test_weights_that_no_file_can_be(weights: str) -> None:
    with pytest.raises(ModelError, match=r"is not an existing \.safetensors file") as raised:
        resolve_image(VIT, weights, SMALL, **INPUT)
    assert len(str(raised.value)) < 500
