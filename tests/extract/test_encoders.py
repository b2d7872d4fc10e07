"""Every family of encoders at its real architecture, random weights, against a direct call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import simplejpeg
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.encoders.compat import prepare_torchvision
from extract.encoders.image import resolve_image, resolve_joint_image
from extract.encoders.layers import average_grid, quarter_depth_layers, select_layer
from extract.encoders.linear import LinearByOneDnn
from extract.encoders.options import Options
from extract.encoders.text import resolve_text
from extract.encoders.timm_tower import quarter_depth_blocks
from extract.precision import difference
from mmsa_cache.errors import ModelError
from mmsa_cache.files.hashing import digest
from mmsa_cache.store.schema import Shard
from tests.support.families import (
    NARROW,
    TEXT_FAMILIES,
    TEXTS,
    chinese_clip,
    clip,
    minilm,
    save,
)
from tests.support.shards import make_keys

CPU = torch.device("cpu")
# float16 keeps 11 bits; LayerNorm's outputs are of the order of 1.
TOLERANCE = {"atol": 4e-3, "rtol": 4e-3}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected.float(), **TOLERANCE)


def in_turn(families: Iterable[str]) -> list[Any]:
    """Names of families, those of their real width for the longer series only."""
    wide = ("bert-base", "clip-vit-b32")
    return [pytest.param(f, marks=pytest.mark.faults) if f in wide else f for f in families]


@pytest.mark.parametrize("family", in_turn(TEXT_FAMILIES))
def test_text_families_give_what_the_library_gives(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    make, limit = TEXT_FAMILIES[family]
    folder = save(tmp_path, make)
    encoder = resolve_text(str(folder), "random", 128, 5).load(CPU)
    assert encoder.label == "model (random weights)"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    inputs = encoder.prepare(TEXTS)
    found = encoder.encode(inputs)
    assert encoder.pools == ("cls", "mean")
    assert found.shared is None
    assert found.tokens.dtype == found.pooled.dtype == torch.float16
    assert found.lengths == [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert len(set(found.lengths)) > 1  # padding took part
    for text, sequence, pooled in zip(
        TEXTS, found.tokens.split(found.lengths), found.pooled, strict=True
    ):
        with torch.inference_mode():
            alone = direct(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        close(sequence, alone)
        close(pooled, torch.stack([alone[0], alone.mean(0)]))

    assert len(encoder.prepare(["good " * 300])[0]) == 128  # truncated
    with pytest.raises(
        ModelError, match=f"takes at most {limit} tokens, max_tokens is {limit + 1}"
    ):
        resolve_text(str(folder), "random", limit + 1, 5).load(CPU)
    longest = resolve_text(str(folder), "random", limit, 5).load(CPU)
    full = longest.encode(longest.prepare(["good " * 600]))
    assert full.lengths == [limit]
    assert full.tokens.isfinite().all()


def test_text_layers_and_positions(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = save(tmp_path, minilm)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        states = direct(**ids, output_hidden_states=True).hidden_states
    expected = {0: states[0], 3: states[3], "average:4": torch.stack(states[-4:]).mean(0)}
    for layer, value in expected.items():
        spec = resolve_text(str(folder), "random", 64, 5, Options(layer=layer))
        encoder = spec.load(CPU)
        found = encoder.encode(encoder.prepare(TEXTS[:1]))
        close(found.tokens, value[0])
        close(found.pooled[0, 0], value[0, 0])
        assert spec.fields["layer"] == layer
    with pytest.raises(ModelError, match=r"has the layers 0 … 6, layer 7 is asked for"):
        resolve_text(str(folder), "random", 64, 5, Options(layer=7)).load(CPU)
    with pytest.raises(ModelError, match="the last 8 of 7 layers cannot be averaged"):
        resolve_text(str(folder), "random", 64, 5, Options(layer="average:8")).load(CPU)

    none = resolve_text(str(folder), "random", 64, 5, Options(tokens="none")).load(CPU)
    keep = resolve_text(str(folder), "random", 64, 5).load(CPU)
    inputs = keep.prepare(TEXTS)
    assert none.encode(inputs).lengths == [0, 0, 0]
    assert none.encode(inputs).tokens.shape == (0, 384)
    torch.testing.assert_close(none.encode(inputs).pooled, keep.encode(inputs).pooled)
    # 2 bytes for each of (positions + 2 pools) · 384, and the row's name, variant and offset
    lengths = [len(value) for value in inputs]
    assert keep.size.bytes(inputs) == 2 * 384 * (np.mean(lengths) + 2) + 64
    assert none.size.bytes(inputs) == 2 * 384 * 2 + 64
    assert keep.size.padded_float32_bytes == 4 * 384 * (64 + 2)


def test_text_pools_of_inner_layers(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = save(tmp_path, minilm)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = resolve_text(str(folder), "random", 64, 5)
    spec = resolve_text(str(folder), "random", 64, 5, Options(pool_layers=(4, 0)))
    assert "pool_layers" not in plain.fields
    assert spec.fields == plain.fields | {"pool_layers": [4, 0]}
    encoder, without = spec.load(CPU), plain.load(CPU)
    inputs = encoder.prepare(TEXTS)
    found, wanted = encoder.encode(inputs), without.encode(inputs)
    assert encoder.pools == ("cls", "mean", "mean@4", "mean@0")
    assert encoder.size.bytes(inputs) == without.size.bytes(inputs) + 2 * 2 * 384
    torch.testing.assert_close(found.tokens, wanted.tokens)
    torch.testing.assert_close(found.pooled[:, :2], wanted.pooled)
    for text, pooled in zip(TEXTS, found.pooled, strict=True):
        with torch.inference_mode():
            output = direct(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        for place, number in ((2, 4), (3, 0)):
            close(pooled[place], output.hidden_states[number][0].mean(0))
    for options in ({"layer": 4}, {"tokens": "none"}):
        chosen = Options(pool_layers=(4, 0), **options)
        other = resolve_text(str(folder), "random", 64, 5, chosen).load(CPU)
        torch.testing.assert_close(other.encode(inputs).pooled[:, 2:], found.pooled[:, 2:])
    with pytest.raises(ModelError, match=r"has the layers 0 … 6, layer 7 is asked for"):
        resolve_text(str(folder), "random", 64, 5, Options(pool_layers=(1, 7))).load(CPU)


def test_pools_at_the_quarters_of_the_depth(tmp_path: Path) -> None:
    layers = [(1, ()), (2, (1,)), (3, (1, 2)), (4, (1, 2, 3)), (6, (1, 3, 4)), (12, (3, 6, 9))]
    assert [(depth, quarter_depth_layers(depth)) for depth, _ in layers] == layers
    folder = save(tmp_path, minilm)
    spec = resolve_text(str(folder), "random", 64, 5, quarters=True)
    assert spec == resolve_text(str(folder), "random", 64, 5, Options(pool_layers=(1, 3, 4)))
    assert spec.fields["pool_layers"] == [1, 3, 4]
    config = json.loads((folder / "config.json").read_text())
    depth = config.pop("num_hidden_layers")
    for name in ("n_layers", "num_layers", "n_layer"):
        (folder / "config.json").write_text(json.dumps(config | {name: depth}))
        again = resolve_text(str(folder), "random", 64, 5, quarters=True)
        assert again.options.pool_layers == (1, 3, 4)
    for value in ({}, {"n_layer": "many"}):
        (folder / "config.json").write_text(json.dumps(config | value))
        assert not resolve_text(str(folder), "random", 64, 5, quarters=True).options.pool_layers
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read: "):
        resolve_text(str(folder), "random", 64, 5)


PLAIN: dict[str, Any] = {"mean": None, "std": None, "size": 32, "fit": "crop", "seed": 5}


def test_what_changes_features_is_in_the_identity(tmp_path: Path) -> None:
    folder = save(tmp_path, minilm)
    spec = resolve_text(str(folder), "random", 64, 5, Options(device="cuda"))
    assert (spec.fields["device"], spec.fields["compute"]) == ("cuda", "float32")
    assert spec.computed_in("float16").fields == spec.fields | {"compute": "float16"}
    picture = resolve_image("test_vit", "random", {}, **PLAIN).fields
    assert picture["device"] == "cpu"
    jpeg, pillow = simplejpeg.__version__.split("."), PIL.__version__.split(".")
    libraries = f"simplejpeg {jpeg[0]}.{jpeg[1]}, pillow {pillow[0]}.{pillow[1]}"
    assert picture["decoder_versions"] == libraries


OTHERS: dict[str, Any] = {
    "source": {"weights": "others"},
    "size": 64,
    "crop": None,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "resample": "bilinear",
    "max_tokens": 32,
    "layer": 1,
    "tokens": "none",
    "compute": "float16",
    "pool_layers": (1,),
    "device": "cuda",
}
"""Another value of every field that is in an identity by itself."""
IN_SOURCE = {"name", "kwargs", "file", "folder", "random_seed", "joint", "options"}
"""What `source` stands for (`test_what_the_source_of_an_encoder_stands_for`), and the options."""


@pytest.mark.parametrize("modality", ["text", "image"])
def test_every_field_of_an_encoder_is_in_its_identity(modality: str, tmp_path: Path) -> None:
    if modality == "text":
        spec = resolve_text(str(save(tmp_path, minilm)), "random", 64, 5)
    else:
        spec = resolve_image("test_vit", "random", {}, **PLAIN)
    for name in {field.name for field in fields(spec)} - IN_SOURCE:
        assert replace(spec, **{name: OTHERS[name]}).fields != spec.fields, name
    for name in (field.name for field in fields(Options)):
        options = replace(spec.options, **{name: OTHERS[name]})
        assert replace(spec, options=options).fields != spec.fields, name


def test_what_the_source_of_an_encoder_stands_for(tmp_path: Path) -> None:
    found = [
        resolve_image(*of, **PLAIN | changes).fields
        for of, changes in (
            (("test_vit", "random", {}), {}),
            (("test_vit2", "random", {}), {}),
            (("test_vit", "random", {"depth": 2}), {}),
            (("test_vit", "random", {}), {"seed": 6}),
        )
    ]
    folder = save(tmp_path, minilm)
    found += [resolve_text(str(folder), "random", 64, seed).fields for seed in (5, 6)]
    for name in (
        *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.txt", "merges.txt", "bpe.codes", "spiece.model"),
    ):
        path = folder / name
        path.write_text((path.read_text() if path.exists() else "{}") + "\n")
        found.append(resolve_text(str(folder), "random", 64, 5).fields)
    assert len(set(map(digest, found))) == len(found)


def test_half_precision_is_near_float32_and_named(tmp_path: Path) -> None:
    folder = save(tmp_path, minilm)
    exact = resolve_text(str(folder), "random", 64, 5)
    encoder = exact.load(CPU)
    inputs = encoder.prepare(TEXTS)
    full = encoder.encode(inputs).tokens.float()
    half = exact.computed_in("bfloat16")
    assert half.fields == exact.fields | {"compute": "bfloat16"}
    rough = half.load(CPU).encode(inputs).tokens.float()
    error = ((rough - full).norm() / full.norm()).item()
    assert 1e-4 < error < 0.03  # bfloat16 keeps 8 bits: it must differ, by about a percent


def test_linear_layers_by_onednn() -> None:
    layer, plain = torch.nn.Linear(300, 70), torch.nn.Linear(70, 9, bias=False)
    values, weight = torch.randn(5, 11, 300), torch.randn(70, 300)[:, ::2]
    half = torch.nn.Linear(300, 70, dtype=torch.bfloat16)
    with torch.inference_mode():
        with LinearByOneDnn():
            found = plain(layer(values)), F.linear(input=values[..., ::2], weight=weight)
            rough = half(values.bfloat16())
        expected = plain(layer(values)), values[..., ::2] @ weight.T
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
        assert rough.equal(half(values.bfloat16()))


def test_differences_between_precisions() -> None:
    def shard(tokens: list[list[float]], pooled: list[list[float]]) -> Shard:
        count = len(pooled)
        offsets = np.array([0, len(tokens), len(tokens)])
        values = np.array(tokens, np.float16), np.array(pooled, np.float16)[:, None]
        return Shard(make_keys(0, count), [""] * count, offsets, *values, ("mean",))

    found = difference(
        shard([[1, -2], [0, 4]], [[1, 1], [3, 0]]), shard([[1, -2], [0, 2]], [[2, 2], [3, 3]])
    )
    assert found == pytest.approx(
        {
            "mean_absolute": 7 / 8,
            "largest_absolute": 3.0,
            "mean_magnitude": 12 / 8,
            "mean_cosine": (1 + 0.5**0.5) / 2,
            "lowest_cosine": 0.5**0.5,
        }
    )


# model → side, patches, dim, pools
IMAGE_FAMILIES = {
    "swinv2_tiny_window8_256": (256, 64, 768, ("mean", "first")),
    "vit_small_patch16_224": (224, 196, 384, ("mean", "first", "cls")),
    "deit_tiny_patch16_224": (224, 196, 192, ("mean", "first", "cls")),
    "deit_tiny_distilled_patch16_224": (224, 196, 192, ("mean", "first", "cls")),
    "vit_medium_patch16_reg4_gap_256": (256, 256, 512, ("mean", "first")),
    "vit_base_patch32_siglip_256": (256, 64, 768, ("mean", "first")),
    "convnext_tiny": (224, 49, 768, ("mean", "first")),
    "resnet18": (224, 49, 512, ("mean", "first")),
    "mobilenetv2_100": (224, 49, 1280, ("mean", "first")),
    "mobilenetv3_large_100": (224, 49, 960, ("mean", "first")),
}
SWIN = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)}
# model → what makes it narrow, and its dim then
NARROW_IMAGES: dict[str, tuple[dict[str, Any], int]] = {
    "swinv2_tiny_window8_256": (SWIN, 192),
    "vit_medium_patch16_reg4_gap_256": ({"embed_dim": 64, "num_heads": 2}, 64),
    "vit_base_patch32_siglip_256": ({"embed_dim": 96, "num_heads": 3}, 96),
    "convnext_tiny": ({"dims": (24, 48, 96, 192)}, 192),
}


def image_encoder(name: str, side: int, kwargs: Any = None, **options: Any) -> Any:
    values = {"mean": None, "std": None, "fit": "squash", "seed": 5, "size": side}
    spec = resolve_image(name, "random", kwargs or {}, options=Options(**options), **values)
    return spec.load(CPU)


def swin_encoder(**options: Any) -> Any:
    """SwinV2-tiny at a quarter of its width: 24, 48, 96 and 192 features in its stages."""
    return image_encoder("swinv2_tiny_window8_256", 256, SWIN, **options)


def pictures(side: int) -> list[Tensor]:
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), np.uint8)
    return list(torch.from_numpy(noise))


def direct_model(name: str, **kwargs: Any) -> Any:
    prepare_torchvision()
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return timm.create_model(name, num_classes=0, **kwargs).eval()


def normalised(batch: list[Tensor], encoder: Any) -> Tensor:
    return (torch.stack(batch) / 255.0 - encoder.mean) / encoder.std


@pytest.mark.parametrize(
    ("name", "narrow"),
    [
        *((name, name in NARROW_IMAGES) for name in IMAGE_FAMILIES),
        *(pytest.param(name, False, marks=pytest.mark.faults) for name in NARROW_IMAGES),
    ],
)
def test_image_families_give_what_the_library_gives(name: str, narrow: bool) -> None:
    side, patches, dim, pools = IMAGE_FAMILIES[name]
    kwargs, dim = NARROW_IMAGES[name] if narrow else ({}, dim)
    encoder = image_encoder(name, side, kwargs)
    batch = pictures(side)
    found = encoder.encode(batch)
    assert encoder.pools == pools
    assert found.lengths == [patches] * 2
    assert found.tokens.shape == (2 * patches, dim)
    with torch.inference_mode():
        raw = direct_model(name, **kwargs).forward_features(normalised(batch, encoder))
    if raw.ndim == 4 and raw.shape[1] == dim:  # (batch, dim, height, width)
        sequence = torch.stack(
            [raw[:, :, i, j] for i in range(raw.shape[2]) for j in range(raw.shape[3])], 1
        )
        prefix = 0
    elif raw.ndim == 4:  # (batch, height, width, dim)
        sequence = torch.stack(
            [raw[:, i, j] for i in range(raw.shape[1]) for j in range(raw.shape[2])], 1
        )
        prefix = 0
    else:
        sequence, prefix = raw, raw.shape[1] - patches
    own = sequence[:, prefix:]
    expected = [own.mean(1), own[:, 0]] + ([sequence[:, 0]] if "cls" in pools else [])
    close(found.tokens, own.reshape(-1, dim))
    close(found.pooled, torch.stack(expected, 1))
    with torch.inference_mode():  # the call that gives inner layers too gives the same last one
        beside = encoder.tower(normalised(batch, encoder), "last", (1,))
    close(beside.patches, own)
    assert len(beside.inner) == 1


def test_image_pools_of_inner_layers() -> None:
    name, batch = "deit_tiny_patch16_224", pictures(224)
    vit = direct_model(name)
    seen: dict[int, Tensor] = {}
    for number, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda _, given, result, n=number: seen.update({n: result}))
    plain = image_encoder(name, 224)
    with torch.inference_mode():
        vit.forward_features(normalised(batch, plain))
    wanted = plain.encode(batch)
    encoder = image_encoder(name, 224, pool_layers=(7, 0), tokens="pool:2x2")
    found = encoder.encode(batch)
    assert encoder.pools == ("mean", "first", "cls", "mean@7", "mean@0", "cls@7", "cls@0")
    torch.testing.assert_close(found.pooled[:, :3], wanted.pooled)
    for place, number in ((3, 7), (4, 0)):
        close(found.pooled[:, place], seen[number][:, 1:].mean(1))
        close(found.pooled[:, place + 2], seen[number][:, 0])
    for layer, expected in ((7, seen[7]), ("average:2", (seen[10] + seen[11]) / 2)):
        deep = image_encoder(name, 224, pool_layers=(3,), layer=layer)
        both = deep.encode(batch)
        close(both.tokens, expected[:, 1:].flatten(0, 1))
        close(both.pooled[:, 2], expected[:, 0])
        close(both.pooled[:, 3], seen[3][:, 1:].mean(1))
        close(both.pooled[:, 4], seen[3][:, 0])
    calls: list[int] = []
    encoder.tower._model.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    encoder.encode(batch)
    assert calls == [1]
    with pytest.raises(ModelError, match="has the layers 0 … 11, layer 12"):
        image_encoder(name, 224, pool_layers=(12,))
    with pytest.raises(ModelError, match="layer 1 has 48 features, the layer that is kept has 192"):
        swin_encoder(pool_layers=(3, 1))
    swin = swin_encoder(pool_layers=(1,), layer=1)
    pooled = swin.encode(pictures(256)).pooled
    assert swin.pools == ("mean", "first", "mean@1")  # it has no class token
    torch.testing.assert_close(pooled[:, 2], pooled[:, 0])


def test_image_pools_at_the_quarters_of_the_depth() -> None:
    blocks = {
        ("deit_tiny_patch16_224", "{}"): (2, 5, 8),  # 3, 6 and 9 of its 12 blocks
        ("deit_tiny_patch16_224", '{"depth": 6}'): (0, 2, 3),
        ("deit_tiny_patch16_224", '{"depth": 1}'): (),
        ("swinv2_base_window8_256", "{}"): (),  # its stages have 128, 256, 512 and 1,024 features
        ("mobilenetv2_100", "{}"): (),
        ("deit_tiny_patch16_224", '{"depht": 6}'): (),
    }
    assert {key: quarter_depth_blocks(*key) for key in blocks} == blocks
    arguments = {"mean": None, "std": None, "size": None, "fit": "crop", "seed": 5}
    spec = resolve_image("deit_tiny_patch16_224", "random", {}, **arguments, quarters=True)
    chosen = Options(pool_layers=(2, 5, 8))
    assert spec == resolve_image("deit_tiny_patch16_224", "random", {}, **arguments, options=chosen)
    assert spec.fields["pool_layers"] == [2, 5, 8]
    assert spec.fields["inner_pools"] == ["mean", "cls"]  # older features have only the means
    plain = resolve_image("mobilenetv2_100", "random", {}, **arguments, quarters=True)
    assert plain.fields.keys().isdisjoint({"pool_layers", "inner_pools"})


def test_image_layers() -> None:
    batch = pictures(224)
    vit = direct_model("deit_tiny_patch16_224")
    encoder = image_encoder("deit_tiny_patch16_224", 224, layer=5)
    seen: list[Tensor] = []
    vit.blocks[5].register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.inference_mode():
        vit.forward_features(normalised(batch, encoder))
    found = encoder.encode(batch)
    close(found.tokens, seen[0][:, 1:].reshape(-1, 192))
    close(found.pooled[:, 2], seen[0][:, 0])  # the class token of that layer
    assert encoder.pools == ("mean", "first", "cls")
    swin = swin_encoder(layer=1)
    assert swin.encode(pictures(256)).tokens.shape == (2 * 32 * 32, 48)  # stage 2 of 4
    with pytest.raises(ModelError, match="has the layers 0 … 11, layer 12"):
        image_encoder("deit_tiny_patch16_224", 224, layer=12)
    with pytest.raises(ModelError, match="stages differ"):
        swin_encoder(layer="average:2")


def test_positions_kept_of_pictures() -> None:
    batch = pictures(256)
    every = swin_encoder().encode(batch)
    whole = every.tokens.float().reshape(2, 8, 8, 192)
    coarse = swin_encoder(tokens="pool:2x4").encode(batch)
    assert coarse.lengths == [8, 8]
    cells = whole.reshape(2, 2, 4, 4, 2, 192).mean((2, 4)).reshape(-1, 192)
    close(coarse.tokens, cells)
    torch.testing.assert_close(coarse.pooled, every.pooled)
    none = swin_encoder(tokens="none")
    assert none.encode(batch).lengths == [0, 0]
    torch.testing.assert_close(none.encode(batch).pooled, every.pooled)
    assert none.size.bytes([]) == 2 * 2 * 192 + 64
    with pytest.raises(ModelError, match=r"has 8×8 patches, tokens = 'pool:9x9' asks for 9×9"):
        swin_encoder(tokens="pool:9x9")


def test_grid_averages_are_the_plain_means() -> None:
    patches = torch.arange(2 * 12 * 3, dtype=torch.float32).reshape(2, 12, 3)
    found = average_grid(patches, (4, 3), (2, 1))
    expected = torch.stack([patches[:, :6].mean(1), patches[:, 6:].mean(1)], 1)
    torch.testing.assert_close(found, expected)


def test_picked_layers() -> None:
    states = [torch.full((1, 2, 2), float(i)) for i in range(4)]
    assert select_layer(states, 2, "m").unique().tolist() == [2.0]
    assert select_layer(states, "average:2", "m").unique().tolist() == [2.5]
    with pytest.raises(ModelError, match="m has the layers 0 … 3, layer 4"):
        select_layer(states, 4, "m")


def siglip(folder: Path) -> tuple[Any, Any]:
    import sentencepiece
    from transformers import SiglipConfig, SiglipTokenizer

    (folder / "lines.txt").write_text("\n".join(["a good day", "a day good a", "good good"] * 30))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"))
    text = {"vocab_size": len(tokenizer), "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    return tokenizer, SiglipConfig(text_config=text | NARROW, vision_config=NARROW)


JOINT_FAMILIES = {  # text pools, image pools, patches, shared features, longest text
    "clip": (clip, ("pooled", "mean"), ("mean", "first", "cls", "pooled"), 49, 512, 77),
    "siglip": (siglip, ("mean",), ("mean", "first"), 196, 96, 64),
    "chinese_clip": (
        chinese_clip,
        ("pooled", "mean"),
        ("mean", "first", "cls", "pooled"),
        49,
        512,
        512,
    ),
}
JOINT_FAMILIES["clip-vit-b32"] = (partial(clip, width={}), *JOINT_FAMILIES["clip"][1:])


@pytest.mark.parametrize("family", in_turn(JOINT_FAMILIES))
def test_joint_families_give_what_the_library_gives(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    make, text_pools, image_pools, patches, shared, longest = JOINT_FAMILIES[family]
    folder = save(tmp_path, make)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"height": 224, "width": 224}, "image_mean": mean, "image_std": std}
            | {"do_center_crop": False}
        )
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()

    spec = resolve_text(str(folder), "random", 1000, 5, joint=True)
    assert spec.max_tokens == spec.fields["max_tokens"] == longest
    inner = resolve_text(str(folder), "random", 1000, 5, joint=True, quarters=True)
    assert inner.fields == spec.fields | {"pool_layers": [3, 6, 9]}
    encoder = spec.load(CPU)
    assert encoder.pools == text_pools
    found = encoder.encode(encoder.prepare(TEXTS))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, sequence, pooled, embedding in zip(
        TEXTS, found.tokens.split(found.lengths), found.pooled, found.shared, strict=True
    ):
        real = len(tokenizer(text)["input_ids"])
        padding = {"padding": "max_length", "max_length": 64} if family == "siglip" else {}
        ids = torch.tensor([tokenizer(text, **padding)["input_ids"]])
        with torch.inference_mode():
            output = direct.get_text_features(input_ids=ids)
        assert len(sequence) == real
        close(sequence, output.last_hidden_state[0, :real])
        close(pooled[text_pools.index("mean")], output.last_hidden_state[0, :real].mean(0))
        close(embedding, output.pooler_output[0])
        if "pooled" in text_pools:
            close(direct.text_projection(pooled[:1].float())[0], output.pooler_output[0])
    assert found.shared.shape == (3, shared)

    picture = resolve_joint_image(str(folder), "random", 5)
    assert (picture.size, picture.crop) == (224, None)
    image = picture.load(CPU)
    assert image.pools == image_pools
    batch = pictures(224)
    seen = image.encode(batch)
    pixels = (torch.stack(batch) / 255.0 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(
        std
    ).view(1, 3, 1, 1)
    with torch.inference_mode():
        output = direct.get_image_features(pixel_values=pixels)
    own = output.last_hidden_state[:, -patches:]
    close(seen.tokens, own.flatten(0, 1))
    close(seen.pooled[:, 0], own.mean(1))
    close(seen.shared, output.pooler_output)
    if "cls" in image_pools:
        close(seen.pooled[:, 2], output.last_hidden_state[:, 0])
        close(direct.visual_projection(seen.pooled[:, 3].float()), output.pooler_output)


def test_joint_layers(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = save(tmp_path, clip)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    encoder = resolve_text(str(folder), "random", 77, 5, Options(layer=4), joint=True).load(CPU)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]])
    with torch.inference_mode():
        output = direct.get_text_features(input_ids=ids, output_hidden_states=True)
    found = encoder.encode(encoder.prepare(TEXTS[:1]))
    close(found.tokens, output.hidden_states[4][0])
    close(found.shared, output.pooler_output)  # the shared space is always the model's own


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_joint_pools_of_inner_layers(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    make, text_pools, image_pools, patches, _, longest = JOINT_FAMILIES[family]
    folder = save(tmp_path, make)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        direct = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
    options = Options(pool_layers=(2, 11))
    encoder = resolve_text(str(folder), "random", 77, 5, options, joint=True).load(CPU)
    assert encoder.pools == (*text_pools, "mean@2", "mean@11")
    found = encoder.encode(encoder.prepare(TEXTS))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": longest} if family == "siglip" else {}
    for text, pooled in zip(TEXTS, found.pooled, strict=True):
        real = len(tokenizer(text)["input_ids"])
        ids = torch.tensor([tokenizer(text, **padding)["input_ids"]])
        with torch.inference_mode():
            output = direct.get_text_features(input_ids=ids, output_hidden_states=True)
        for place, number in ((-2, 2), (-1, 11)):
            close(pooled[place], output.hidden_states[number][0, :real].mean(0))

    image = resolve_joint_image(str(folder), "random", 5, options).load(CPU)
    batch = pictures(224)
    has_cls = "cls" in image_pools
    inner = ["mean@2", "mean@11", *(["cls@2", "cls@11"] if has_cls else [])]
    assert image.pools == (*image_pools, *inner)
    seen = image.encode(batch)
    with torch.inference_mode():
        output = direct.get_image_features(
            pixel_values=normalised(batch, image), output_hidden_states=True
        )
    for number in (2, 11):
        states = output.hidden_states[number]
        close(seen.pooled[:, image.pools.index(f"mean@{number}")], states[:, -patches:].mean(1))
        if has_cls:
            close(seen.pooled[:, image.pools.index(f"cls@{number}")], states[:, 0])
    close(seen.shared, output.pooler_output)
    quarters = resolve_joint_image(str(folder), "random", 5, quarters=True)
    assert quarters.options.pool_layers == (3, 6, 9)


def test_a_text_model_is_not_a_joint_one(tmp_path: Path) -> None:
    folder = save(tmp_path, minilm)
    with pytest.raises(ModelError, match="is not the folder of a joint image-text model"):
        resolve_text(str(folder), "random", 64, 5, joint=True)
    with pytest.raises(ModelError, match=r"BertModel\) is not a joint image-text model"):
        resolve_joint_image(str(folder), "random", 5).load(CPU)


def test_a_joint_model_is_not_a_text_one(tmp_path: Path) -> None:
    folder = save(tmp_path, clip)
    with pytest.raises(ModelError, match="--joint-model for an image-text one"):
        resolve_text(str(folder), "random", 64, 5).load(CPU)
