"""Projections, poolings, fusions and head: shapes, and values against independent NumPy code."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fuse.models.attention_fusions import DIRECTIONS
from fuse.models.builder import build_model
from fuse.models.fusion import FusionConfig
from fuse.models.fusions import FUSIONS, NEEDS_EQUAL_DIMS, NEEDS_HEADS, build_fusion
from fuse.models.model import MultimodalClassifier
from fuse.models.noise import LOWEST, count_noise, noise_from
from fuse.models.projection import POOLINGS, Pool, Projection, Standardise

LEVELS = ("pooled", "tokens")
ATTENDING = ("attention", "attention_concat", "attention_combine")
TEXT_IN, IMAGE_IN, TEXT_DIM, IMAGE_DIM, HEADS, RANK = 6, 5, 8, 4, 2, 3
BESIDE = {"text_vector": 4, "image_vector": 3, "image_vector2": 7}

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def image_dim(fusion: str) -> int:
    return TEXT_DIM if fusion in NEEDS_EQUAL_DIMS else IMAGE_DIM


def make(fusion: str, seed: int = 0, **changes: Any) -> MultimodalClassifier:
    """A small model in float64 and eval mode, every parameter away from zero and one."""
    torch.manual_seed(seed)
    flags: dict[str, Any] = {
        "text_in": TEXT_IN,
        "image_in": IMAGE_IN,
        "text_dim": TEXT_DIM,
        "image_dim": image_dim(fusion),
        "dropout": 0.3,
        "heads": HEADS,
        "layers": 2,
        "ffn": 12,
        "rank": RANK,
        "head_dims": (7, 5),
    }
    model = build_model(fusion=fusion, **{**flags, **changes}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def inputs(level: str, seed: int = 1, rows: int = 4) -> Inputs:
    """Text, its mask, image, its mask. Tokens are ragged, and row 1 begins with a padded place."""
    torch.manual_seed(seed)
    tokens, patches = (1, 1) if level == "pooled" else (5, 7)
    text = torch.randn(rows, tokens, TEXT_IN, dtype=torch.float64)
    image = torch.randn(rows, patches, IMAGE_IN, dtype=torch.float64)
    text_mask = torch.ones(rows, tokens, dtype=torch.bool)
    image_mask = torch.ones(rows, patches, dtype=torch.bool)
    if level == "tokens":
        text_mask[0, 1:] = False
        text_mask[1, [0, 3]] = False
        image_mask[1, [0, 4, 6]] = False
        image_mask[2, 1:] = False
    return text, text_mask, image, image_mask


def numbers(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def linear(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return centred / spread * p[f"{name}.weight"] + p[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def multi_head_attention(
    p: dict[str, np.ndarray], name: str, query: np.ndarray, key: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Attended ``(queries, dim)`` and weights ``(queries, keys)`` averaged over the heads."""
    dim = query.shape[1]
    w_q, w_k, w_v = np.split(p[f"{name}.in_proj_weight"], 3)
    b_q, b_k, b_v = np.split(p[f"{name}.in_proj_bias"], 3)
    q, k, v = query @ w_q.T + b_q, key @ w_k.T + b_k, key @ w_v.T + b_v
    outputs, weights = [], []
    for at in np.split(np.arange(dim), HEADS):
        weights.append(softmax(q[:, at] @ k[:, at].T / np.sqrt(dim / HEADS)))
        outputs.append(weights[-1] @ v[:, at])
    attended = linear(p, f"{name}.out_proj", np.concatenate(outputs, axis=1))
    return attended, np.mean(weights, axis=0)


def encode(p: dict[str, np.ndarray], x: np.ndarray, layers: int) -> np.ndarray:
    """Post-norm encoder layers with ReLU."""
    for i in range(layers):
        name = f"fusion.encoder.layers.{i}"
        attended, _ = multi_head_attention(p, f"{name}.self_attn", x, x)
        x = layer_norm(p, f"{name}.norm1", x + attended)
        hidden = np.maximum(linear(p, f"{name}.linear1", x), 0.0)
        x = layer_norm(p, f"{name}.norm2", x + linear(p, f"{name}.linear2", hidden))
    return x


def pool(p: dict[str, np.ndarray], name: str, x: np.ndarray, pooling: str) -> np.ndarray:
    if pooling == "first":
        return x[0]
    if pooling == "attention":
        return softmax(x @ p[f"{name}.score.weight"][0]) @ x
    return x.mean(axis=0)


def fuse_row(
    p: dict[str, np.ndarray],
    fusion: str,
    t: np.ndarray,
    v: np.ndarray,
    text_pooling: str,
    image_pooling: str,
    directions: str = "text",
) -> np.ndarray:
    """The fused vector of one row from its real projected positions only: there is no mask."""
    if fusion == "encoder":
        if "fusion.text_embedding" in p:
            t, v = t + p["fusion.text_embedding"], v + p["fusion.image_embedding"]
        return encode(p, np.concatenate([t, v]), layers=2).mean(axis=0)
    pooled = []
    if fusion != "attention":
        pooled = [
            pool(p, "fusion.text_pool", t, text_pooling),
            pool(p, "fusion.image_pool", v, image_pooling),
        ]
    if fusion in ATTENDING:
        keys = linear(p, "fusion.image_to_text", v) if fusion == "attention_concat" else v
        a, _ = multi_head_attention(p, "fusion.attention.mha", t, keys)
        pooled.append(pool(p, "fusion.attention.pool", a, text_pooling))
        if directions == "both":
            a, _ = multi_head_attention(p, "fusion.attention.image_mha", keys, t)
            pooled.append(pool(p, "fusion.attention.image_pool", a, image_pooling))
    if fusion == "gated":
        t, v = pooled
        z = 1.0 / (1.0 + np.exp(-p["fusion.gate.weight"] @ np.concatenate([v, t])))
        h_t = np.tanh(p["fusion.text_linear.weight"] @ t)
        return z * np.tanh(p["fusion.image_linear.weight"] @ v) + (1.0 - z) * h_t
    if fusion == "lowrank":
        return low_rank(p, *pooled)
    if fusion.endswith("combine"):
        return np.sum(pooled, axis=0)
    return np.concatenate(pooled)


def low_rank(p: dict[str, np.ndarray], t: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Through the full weight tensor ``(TEXT_DIM, text_dim + 1, image_dim + 1)``."""
    factors = [
        np.column_stack([p[f"fusion.{name}.weight"], p[f"fusion.{name}.bias"]])
        for name in ("text_factors", "image_factors")
    ]
    w_t, w_v = (factor.reshape(RANK, TEXT_DIM, -1) for factor in factors)
    tensor = np.einsum("rhi,rhj->hij", w_t, w_v)
    return np.einsum("hij,i,j->h", tensor, np.append(t, 1.0), np.append(v, 1.0))


def projected(p: dict[str, np.ndarray], name: str, x: Tensor, mask: Tensor) -> list[np.ndarray]:
    """The real positions of every row, projected."""
    return [
        linear(p, f"{name}_projection.linear", x[b][mask[b]].numpy()) for b in range(x.shape[0])
    ]


def vectors(seed: int = 2, rows: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        name: torch.randn(rows, features, dtype=torch.float64) for name, features in BESIDE.items()
    }


def parametrise_all(test: Any) -> Any:
    test = pytest.mark.parametrize("fusion", FUSIONS)(test)
    return pytest.mark.parametrize("level", LEVELS)(test)


@pytest.mark.parametrize("directions", DIRECTIONS)
@parametrise_all
def test_classifier_input_sizes_are_those_of_the_table(
    fusion: str, level: str, directions: str
) -> None:
    t, v = TEXT_DIM, image_dim(fusion)
    more = t * (directions == "both")
    table = {
        "concat": t + v,
        "combine": t,
        "attention": t + more,
        "attention_concat": 2 * t + v + more,
        "attention_combine": t,
        "encoder": t,
        "gated": t,
        "lowrank": t,
        "late": t + v,
    }
    assert table.keys() == FUSIONS.keys()
    model = make(fusion, classes=4, directions=directions)
    parts = [model.head.text, model.head.image] if fusion == "late" else [model.head]
    assert sum(part.layers[0].in_features for part in parts) == table[fusion]
    logits, out = model(*inputs(level))
    assert out["fused"].shape == (4, table[fusion])
    assert logits.shape == (4, 4)


def test_the_report_settings_are_the_defaults() -> None:
    model = build_model(fusion="encoder", text_in=6, image_in=5, text_dim=16)
    layers = model.fusion.encoder.layers
    assert len(layers) == 6
    assert {(layer.self_attn.num_heads, layer.linear1.out_features) for layer in layers} == {
        (8, 2048)
    }
    kinds = [type(m).__name__ for m in model.head.layers]
    assert kinds == ["Linear", "BatchNorm", "LeakyReLU", "Dropout"] * 2 + ["Linear"]
    sizes = [m.out_features for m in model.head.modules() if isinstance(m, nn.Linear)]
    assert sizes == [1024, 256, 3]
    assert (
        build_fusion("attention", FusionConfig(text_dim=16, image_dim=16)).attention.mha.num_heads
        == 8
    )
    default = build_model(text_in=6, image_in=5, text_dim=16)
    assert type(default.fusion) is type(
        build_fusion("concat", FusionConfig(text_dim=16, image_dim=16))
    )
    assert default.image_projection.out_dim == 16


OPTIONS: list[dict[str, Any]] = [
    *({"pooling": pooling} for pooling in POOLINGS),
    {"text_pooling": "attention", "image_pooling": "first", "directions": "both"},
    {"pooling": "first", "image_pooling": "mean", "modality_embeddings": True},
]
with_options = pytest.mark.parametrize(
    "flags", OPTIONS, ids=lambda flags: "-".join(map(str, flags.values()))
)


@with_options
@parametrise_all
def test_fused_values(fusion: str, level: str, flags: dict[str, Any]) -> None:
    model = make(fusion, **flags)
    text, text_mask, image, image_mask = inputs(level)
    p = numbers(model)
    ways = [flags.get(f"{name}_pooling", flags.get("pooling")) for name in ("text", "image")]
    expected = [
        fuse_row(p, fusion, t, v, *ways, flags.get("directions", "text"))
        for t, v in zip(
            projected(p, "text", text, text_mask),
            projected(p, "image", image, image_mask),
            strict=True,
        )
    ]
    logits, out = model(text, text_mask, image, image_mask)
    with torch.no_grad():  # PyTorch has other kernels for inference
        logits_again, out_again = model(text, text_mask, image, image_mask)
    np.testing.assert_allclose(out["fused"].detach(), expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(out_again["fused"], expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(logits_again, logits, rtol=0, atol=1e-11)


def test_head_values() -> None:
    model = make("concat")
    p = numbers(model)
    logits, out = model(*inputs("tokens"))
    x = out["fused"].detach().numpy()
    np.testing.assert_allclose(logits.detach(), head(p, "head", x), rtol=0, atol=1e-12)


def head(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Logits of one head with running figures."""
    for i in (0, 4):
        x = linear(p, f"{name}.layers.{i}", x)
        norm = f"{name}.layers.{i + 1}"
        x = (x - p[f"{norm}.running_mean"]) / np.sqrt(p[f"{norm}.running_var"] + 1e-5)
        x = x * p[f"{norm}.weight"] + p[f"{norm}.bias"]
        x = np.where(x > 0, x, 0.01 * x)
    return linear(p, f"{name}.layers.8", x)


@pytest.mark.parametrize("level", LEVELS)
def test_late_averages_the_class_probabilities_of_two_heads(level: str) -> None:
    model = make("late", beside=BESIDE)
    batch, extra = inputs(level), vectors()
    batch[1][2] = False  # no text
    batch[3][3] = False  # no image
    p = numbers(model)
    logits, out = model(*batch, extra)
    t, v = np.split(out["fused"].detach().numpy()[:, : TEXT_DIM + IMAGE_DIM], [TEXT_DIM], axis=1)
    beside = {name: linear(p, f"beside.{name}.linear", x.numpy()) for name, x in extra.items()}
    p_text = softmax(head(p, "head.text", np.column_stack([t, beside["text_vector"]])))
    images = [beside["image_vector"], beside["image_vector2"]]
    p_image = softmax(head(p, "head.image", np.column_stack([v, *images])))
    expected = (p_text + p_image) / 2
    expected[2], expected[3] = p_image[2], p_text[3]
    np.testing.assert_allclose(logits.exp().detach(), expected, rtol=0, atol=1e-12)


@parametrise_all
def test_vectors_beside(fusion: str, level: str) -> None:
    batch, extra = inputs(level), vectors()
    batch[1][2] = False
    batch[3][3] = False
    model = make(fusion, beside=BESIDE)
    p = numbers(model)
    fused = model(*batch, extra)[1]["fused"].detach().numpy()
    expected = []
    for name, missing in (("text_vector", 2), ("image_vector", 3), ("image_vector2", 3)):
        part = linear(p, f"beside.{name}.linear", extra[name].numpy())
        part[missing] = 0.0
        expected.append(part)
    joined = np.column_stack(expected)
    np.testing.assert_allclose(fused[:, -joined.shape[1] :], joined, rtol=0, atol=1e-12)
    assert list(model.projections) == ["text", "image", *BESIDE]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_vectors_beside_one_modality(modality: str) -> None:
    model = make("late", modality=modality, beside=BESIDE)
    assert list(model.projections) == [modality, *(n for n in BESIDE if n.startswith(modality))]
    text, text_mask, image, image_mask = inputs("tokens")
    if modality == "text":
        image, image_mask = None, None
    else:
        text, text_mask = None, None
    logits, _ = model(text, text_mask, image, image_mask, vectors())
    assert bool(logits.isfinite().all())


def test_wrong_vectors_beside() -> None:
    for name in ("sound", "text"):  # the latter is the name of the sequence
        with pytest.raises(ValueError, match=f"vector beside '{name}': .* with text_ or image_"):
            make("concat", beside={name: 3})
    model = make("concat", beside=BESIDE)
    for given in (None, {"text_vector": vectors()["text_vector"]}):
        with pytest.raises(ValueError, match=r"this model reads the (text|image)_vector"):
            model(*inputs("pooled"), given)
    with pytest.raises(
        ValueError, match=r"image_vector2: expected \(batch, 7\), received \(4, 3\)"
    ):
        model(*inputs("pooled"), {**vectors(), "image_vector2": vectors()["image_vector"]})


def with_padding(x: Tensor, mask: Tensor, before: int, after: int) -> tuple[Tensor, Tensor]:
    """More padded places on both sides; these and the old ones hold large values."""
    rows, _, dim = x.shape

    def garbage(tokens: int) -> Tensor:
        return 1e6 * torch.randn(rows, tokens, dim, dtype=x.dtype)

    x = torch.where(mask.unsqueeze(2), x, garbage(mask.shape[1]))
    longer = torch.cat([garbage(before), x, garbage(after)], dim=1)
    return longer, nn.functional.pad(mask, (before, after), value=False)


@pytest.mark.parametrize("training", [False, True])
@with_options
@parametrise_all
def test_padding_changes_nothing(
    fusion: str, level: str, flags: dict[str, Any], training: bool
) -> None:
    model = make(fusion, **flags, dropout=0.0).train(training)
    text, text_mask, image, image_mask = inputs(level)
    padded = (*with_padding(text, text_mask, 2, 3), *with_padding(image, image_mask, 4, 1))
    logits, out = model(text, text_mask, image, image_mask)
    padded_logits, padded_out = model(*padded)
    torch.testing.assert_close(padded_out["fused"], out["fused"], rtol=0, atol=1e-11)
    torch.testing.assert_close(padded_logits, logits, rtol=0, atol=1e-10)


@parametrise_all
def test_padded_places_get_no_gradient(fusion: str, level: str) -> None:
    model = make(fusion)
    text, text_mask, image, image_mask = inputs(level)
    text, text_mask = with_padding(text, text_mask, 1, 2)
    image, image_mask = with_padding(image, image_mask, 0, 2)
    text.requires_grad_()
    image.requires_grad_()
    logits, _ = model(text, text_mask, image, image_mask)
    (logits * torch.randn_like(logits)).sum().backward()
    for x, mask in ((text, text_mask), (image, image_mask)):
        assert x.grad is not None
        assert float(x.grad[~mask].abs().max()) == 0.0
    assert image.grad is not None
    assert bool((image.grad[image_mask].abs().amax(dim=1) > 0).all())


def test_with_one_image_key_the_attention_output_ignores_the_text() -> None:
    model = make("attention")
    _, _, image, image_mask = inputs("pooled")
    text, text_mask, _, _ = inputs("tokens")
    other_text = torch.randn_like(text)
    fused = model(text, text_mask, image, image_mask)[1]["fused"]
    other = model(other_text, text_mask.flip(0), image, image_mask)[1]["fused"]
    torch.testing.assert_close(other, fused, rtol=0, atol=1e-12)
    p = numbers(model)
    v = linear(p, "image_projection.linear", image[:, 0].numpy())
    name = "fusion.attention.mha"
    w_v, b_v = p[f"{name}.in_proj_weight"][-TEXT_DIM:], p[f"{name}.in_proj_bias"][-TEXT_DIM:]
    expected = linear(p, f"{name}.out_proj", v @ w_v.T + b_v)
    np.testing.assert_allclose(fused.detach(), expected, rtol=0, atol=1e-12)
    # With a second key the text counts, row by row.
    two = (torch.cat([image, image.flip(0)], dim=1), image_mask.expand(-1, 2))
    change = (
        model(text, text_mask, *two)[1]["fused"] - model(other_text, text_mask, *two)[1]["fused"]
    )
    assert bool((change.abs().amax(dim=1) > 1e-3).all())


def gradients(model: nn.Module) -> dict[str, float]:
    """Largest gradient by parameter name, query, key and value projections apart."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if "in_proj" in name:
            for part, rows in zip(("query", "key", "value"), gradient.chunk(3), strict=True):
                found[f"{name}.{part}"] = float(rows.abs().max())
        else:
            found[name] = float(gradient.abs().max())
    return found


def gets_no_gradient(name: str, fusion: str, level: str, flags: dict[str, Any]) -> bool:
    """The exceptions: what the softmax makes ineffective.

    - A key bias adds the same number to all scores of a query.
    - With one key its weight is 1 whatever the scores, so cross-attention does not use queries and
      keys, the ``attention`` fusion does not use its text, and pooling does not use its score.
    """
    if name.endswith("in_proj_bias.key"):
        return True
    if level == "tokens":
        return False
    cross = name.startswith("fusion.attention.") and name.endswith((".query", ".key"))
    text_alone = fusion == "attention" and "directions" not in flags
    unread = text_alone and name.startswith("text_projection.")
    return cross or unread or name.endswith("score.weight")


@with_options
@parametrise_all
def test_gradients_reach_every_parameter(fusion: str, level: str, flags: dict[str, Any]) -> None:
    # In eval mode: batch normalisation of a training batch takes every shift before it away.
    model = make(fusion, **flags)
    logits, _ = model(*inputs(level, rows=8))
    (logits * torch.randn_like(logits)).sum().backward()
    for name, largest in gradients(model).items():
        if gets_no_gradient(name, fusion, level, flags):
            assert largest < 1e-11, name
        else:
            assert largest > 1e-6, name


@parametrise_all
def test_gradients_of_the_inputs_equal_finite_differences(fusion: str, level: str) -> None:
    model = make(fusion, directions="both", norm="layer")
    text, text_mask, image, image_mask = inputs(level, rows=3)

    def fused(t: Tensor, v: Tensor) -> Tensor:
        vector: Tensor = model(t, text_mask, v, image_mask)[1]["fused"]
        return vector

    assert torch.autograd.gradcheck(fused, (text.requires_grad_(), image.requires_grad_()))


@parametrise_all
def test_state_dict_round_trip(fusion: str, level: str) -> None:
    model = make(fusion, pooling="attention", norm="standardise")
    for projection in (model.text_projection, model.image_projection):
        figures = torch.rand(2, projection.in_dim, dtype=torch.float64)
        projection.standardise.fit(figures[0], 0.5 + figures[1])
    model.train()
    for seed in (5, 6):  # moves the running figures of batch normalisation
        model(*inputs(level, seed=seed))
    model.eval()
    batch = inputs(level)
    logits, _ = model(*batch)
    other = make(fusion, seed=9, pooling="attention", norm="standardise")
    assert not torch.allclose(other(*batch)[0], logits)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(*batch)[0], logits)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("need_weights", [False, True])
@parametrise_all
def test_rows_without_a_real_position(
    fusion: str, level: str, pooling: str, need_weights: bool
) -> None:
    text, text_mask, image, image_mask = inputs(level)
    text_mask[[1, 3]] = False
    image_mask[[2, 3]] = False
    model = make(fusion, pooling=pooling).float()
    text, image = 100.0 * text, 100.0 * image
    for training in (True, False):
        model.train(training)
        model.zero_grad()
        logits, out = model(text, text_mask, image, image_mask, need_weights=need_weights)
        for value in (logits, *out.values()):
            assert bool(value.isfinite().all())
        logits.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
        empty = [1, 2, 3] if fusion == "attention" else [3]
        if fusion != "lowrank":  # which has the product of its ones there
            assert float(out["fused"][empty].abs().detach().max()) == 0.0
        assert bool((out["fused"][0] != 0).any())
        if "attention" in out:
            without = [3] if fusion == "encoder" else [2, 3]
            assert float(out["attention"][without].abs().detach().max()) == 0.0
    with torch.no_grad():
        nothing = (torch.zeros_like(text_mask), torch.zeros_like(image_mask))
        logits, out = model(text, nothing[0], image, nothing[1])
        assert bool(logits.isfinite().all())
        if fusion == "lowrank":
            assert torch.equal(out["fused"], out["fused"][:1].expand_as(out["fused"]))
        else:
            assert float(out["fused"].abs().max()) == 0.0


@pytest.mark.parametrize(
    ("pooling", "without"),
    [
        *((pooling, ["text", "image"]) for pooling in POOLINGS),
        ("mean", ["text"]),
        ("mean", ["image"]),
    ],
)
@parametrise_all
def test_without_a_mask_all_positions_are_real(
    fusion: str, level: str, pooling: str, without: list[str]
) -> None:
    text, text_mask, image, image_mask = inputs(level)
    batch = {"text": text, "text_mask": text_mask, "image": image, "image_mask": image_mask}
    for name in without:
        batch[f"{name}_mask"] = torch.ones_like(batch[f"{name}_mask"])
    short = {key: x for key, x in batch.items() if key.removesuffix("_mask") not in without}
    short |= {name: batch[name] for name in without}
    beside = {"text_vector": 3, "image_vector": 2}
    extra = {name: torch.randn(len(text), dim).double() for name, dim in beside.items()}
    model = make(fusion, pooling=pooling, beside=beside, modality_dropout=0.5)
    ends = []
    for given in (batch, short):
        model.zero_grad()
        logits, out = model(**given, vectors=extra, need_weights=True)
        logits.square().sum().backward()
        slopes = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        ends.append({"logits": logits, **out, **slopes})
    torch.testing.assert_close(ends[1], ends[0])
    count = count_noise(model, *batch.values(), extra)
    noise = torch.randint(LOWEST, -LOWEST, (count,), dtype=torch.int16)
    trained = []
    for given in (batch, short):  # modality dropout makes masks where there were none
        with noise_from(noise):
            trained.append(model.train()(**given, vectors=extra)[0])
    torch.testing.assert_close(trained[1], trained[0])


ABSENT = pytest.mark.parametrize("absent", ["text", "image"])
"""The modality that rows of a batch lack."""


@ABSENT
@parametrise_all
def test_a_missing_modality_changes_nothing_by_its_features(
    fusion: str, level: str, absent: str
) -> None:
    model = make(fusion, beside=BESIDE, directions="both", modality_embeddings=True)
    text, text_mask, image, image_mask = inputs(level)
    extra = vectors()
    mask = text_mask if absent == "text" else image_mask
    mask[1:3] = False

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        logits, _ = model(text, text_mask, image, image_mask, extra)
        logits.square().sum().backward()
        return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    logits, found = run()
    features = text if absent == "text" else image
    features[1:3] = 1e4 * torch.randn_like(features[1:3])
    for name, vector in extra.items():
        if name.startswith(absent):
            vector[1:3] = 1e4 * torch.randn_like(vector[1:3])
    again, found_again = run()
    assert bool(logits.isfinite().all())
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    torch.testing.assert_close(again, logits, rtol=0, atol=1e-11)
    torch.testing.assert_close(found_again, found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_intermediates_come_out_by_name(fusion: str) -> None:
    model = make(fusion, directions="both")
    _, out = model(*inputs("tokens"))
    fused = out.pop("fused")
    attended = {"attended", "attended_image"} if fusion in ATTENDING else set()
    pooled = set() if fusion in ("attention", "encoder") else {"text", "image"}
    assert out.keys() == attended | pooled | ({"gate"} if fusion == "gated" else set())
    parts = [out[name] for name in ("text", "image", "attended", "attended_image") if name in out]
    if fusion in ("concat", "late", "attention", "attention_concat"):
        assert torch.equal(fused, torch.cat(parts, dim=1))
    elif fusion in ("combine", "attention_combine"):
        torch.testing.assert_close(fused, torch.stack(parts).sum(0))


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fusion", ATTENDING)
def test_attention_weights_come_out_by_name(fusion: str, level: str, directions: str) -> None:
    model = make(fusion, directions=directions)
    text, text_mask, image, image_mask = inputs(level)
    image, image_mask = with_padding(image, image_mask, 1, 2)
    logits, out = model(text, text_mask, image, image_mask, need_weights=True)
    p = numbers(model)
    t = projected(p, "text", text, text_mask)
    v = projected(p, "image", image, image_mask)
    if fusion == "attention_concat":
        v = [linear(p, "fusion.image_to_text", rows) for rows in v]
    ways = [("attention", "mha", (t, text_mask), (v, image_mask))]
    if directions == "both":
        ways.append(("attention_image", "image_mha", (v, image_mask), (t, text_mask)))
    else:
        assert "attention_image" not in out
    for name, module, (queries, query_mask), (keys, key_mask) in ways:
        weights = out[name].detach()
        assert weights.shape == (*query_mask.shape, key_mask.shape[1])
        real = key_mask.unsqueeze(1).expand_as(weights)
        assert float(weights[~real].abs().sum()) == 0.0
        assert bool((weights[real & query_mask.unsqueeze(2)] > 0).all())
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(query_mask.shape).double())
        for b in range(len(queries)):
            _, expected = multi_head_attention(p, f"fusion.attention.{module}", queries[b], keys[b])
            received = weights[b][query_mask[b]][:, key_mask[b]]
            np.testing.assert_allclose(received, expected, rtol=0, atol=1e-12)
    without, _ = model(text, text_mask, image, image_mask)
    torch.testing.assert_close(without, logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_attention_weights_of_the_encoder(level: str) -> None:
    model = make("encoder")
    text, text_mask, image, image_mask = inputs(level)
    logits, out = model(text, text_mask, image, image_mask, need_weights=True)
    weights = out["attention"].detach()
    mask = torch.cat([text_mask, image_mask], dim=1)
    assert weights.shape == (4, 2, mask.shape[1], mask.shape[1])
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(weights.shape[:3]).double())
    p = numbers(model)
    t, v = projected(p, "text", text, text_mask), projected(p, "image", image, image_mask)
    for b in range(4):
        assert float(weights[b][:, :, ~mask[b]].abs().sum()) == 0.0
        x = np.concatenate([t[b], v[b]])
        for i in range(2):
            name = f"fusion.encoder.layers.{i}.self_attn"
            _, expected = multi_head_attention(p, name, *2 * [encode(p, x, layers=i)])
            received = weights[b, i][mask[b]][:, mask[b]]
            np.testing.assert_allclose(received, expected, rtol=0, atol=1e-11)
    without, _ = model(text, text_mask, image, image_mask)
    torch.testing.assert_close(without, logits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("fusion", sorted(FUSIONS.keys() - NEEDS_HEADS))
def test_asking_for_weights_that_are_not_there_changes_nothing(fusion: str) -> None:
    model = make(fusion)
    logits, out = model(*inputs("tokens"), need_weights=True)
    assert "attention" not in out
    assert torch.equal(logits, model(*inputs("tokens"))[0])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("modality", ["text", "image"])
def test_one_modality_skips_the_fusion(modality: str, pooling: str, level: str) -> None:
    # Sizes that the fusion could not take: it is not built.
    model = make(
        "encoder", modality=modality, image_dim=5, heads=3, **{f"{modality}_pooling": pooling}
    )
    assert not any(name.startswith("fusion") for name in model.state_dict())
    own = {"text": (TEXT_IN, TEXT_DIM), "image": (IMAGE_IN, 5)}[modality]
    assert own == tuple(numbers(model)[f"{modality}_projection.linear.weight"].shape[::-1])
    text, text_mask, image, image_mask = inputs(level)
    if modality == "text":
        x, mask, args = text, text_mask, (text, text_mask, None, None)
    else:
        x, mask, args = image, image_mask, (None, None, image, image_mask)
    logits, out = model(*args)
    p = numbers(model)
    expected = [pool(p, "pool", rows, pooling) for rows in projected(p, modality, x, mask)]
    np.testing.assert_allclose(out["fused"].detach(), expected, rtol=0, atol=1e-12)
    assert torch.equal(model(text, text_mask, image, image_mask)[0], logits)


def test_dropout_acts_in_training_only() -> None:
    batch = inputs("tokens", rows=8)
    for flags in ({"dropout": 0.5}, {"dropout": 0.0, "input_dropout": 0.5}):
        model = make("encoder", **flags)
        assert torch.equal(model(*batch)[0], model(*batch)[0])
        model.train()
        assert not torch.allclose(model(*batch)[0], model(*batch)[0])
    model = make("encoder", dropout=0.0).train()
    assert torch.equal(model(*batch)[0], model(*batch)[0])


@parametrise_all
def test_float16_features_are_read_as_float32(fusion: str, level: str) -> None:
    model = make(fusion).float()
    text, text_mask, image, image_mask = inputs(level)
    logits, _ = model(text.half(), text_mask, image.half(), image_mask)
    assert logits.dtype == torch.float32
    again, _ = model(text.half().float(), text_mask, image.half().float(), image_mask)
    assert torch.equal(logits, again)


@parametrise_all
def test_standardisation_in_the_model(fusion: str, level: str) -> None:
    """A model that standardises equals one without on features standardised by NumPy."""
    text, text_mask, image, image_mask = inputs(level)
    model = make(fusion, norm="standardise")
    plain = make(fusion)
    weights = {k: v for k, v in model.state_dict().items() if ".standardise." not in k}
    plain.load_state_dict(weights)
    batch = (text, text_mask, image, image_mask)
    torch.testing.assert_close(model(*batch)[0], plain(*batch)[0])  # not fitted: the identity
    rng = np.random.default_rng(0)
    ready = []
    for x, projection in ((text, model.text_projection), (image, model.image_projection)):
        mean, std = rng.standard_normal(x.shape[2]), rng.uniform(0.5, 2.0, x.shape[2])
        std[0] = 0.0
        projection.standardise.fit(torch.tensor(mean), torch.tensor(std))
        divisor = np.where(std < 1e-3, 1e-3, std)
        ready.append(torch.tensor((x.numpy() - mean) / divisor))
    expected = plain(ready[0], text_mask, ready[1], image_mask)[0]
    received = model(*batch)[0]
    torch.testing.assert_close(received, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(received, plain(*batch)[0])


def test_projection_with_layer_normalisation() -> None:
    torch.manual_seed(3)
    projection = Projection(4, 3, "layer", 0.0, False).double()
    assert [name for name, _ in projection.named_parameters()] == ["linear.weight", "linear.bias"]
    x = 5.0 + 3.0 * torch.randn(2, 5, 4, dtype=torch.float64)
    plain = {"norm.weight": np.ones(4), "norm.bias": np.zeros(4)}
    ready = layer_norm(plain, "norm", x.numpy().reshape(10, 4)).reshape(2, 5, 4)
    expected = linear(numbers(projection), "linear", ready)
    np.testing.assert_allclose(projection(x).detach(), expected, rtol=0, atol=1e-12)
    assert bool(projection(torch.zeros(2, 4)).isfinite().all())


def test_a_model_without_standardisation_cannot_fit_it() -> None:
    for norm in ("none", "layer"):
        with pytest.raises(ValueError, match="build it with norm='standardise'"):
            make("concat", norm=norm).fit_standardisation({})
    with pytest.raises(ValueError, match="reads the text_vector: its mean and std are required"):
        make("concat", norm="standardise", beside=BESIDE).fit_standardisation(
            {name: (torch.zeros(n), torch.ones(n)) for name, n in (("text", 6), ("image", 5))}
        )


def test_standardise_values_and_floor() -> None:
    standardise = Standardise(4).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    assert torch.equal(standardise(x), x)
    mean = torch.tensor([1.0, -2.0, 0.5, 0.0])
    std = torch.tensor([2.0, 0.0, 9e-4, 1.1e-3])
    standardise.fit(mean, std)
    divisor = np.array([2.0, 1e-3, 1e-3, np.float32(1.1e-3)])
    np.testing.assert_allclose(standardise(x), (x.numpy() - mean.numpy()) / divisor, rtol=1e-12)


def test_projection_standardises_before_the_linear_map() -> None:
    torch.manual_seed(3)
    projection = Projection(4, 3, "standardise", 0.0, False).double()
    mean, std = torch.randn(4).double(), 0.5 + torch.rand(4).double()
    projection.standardise.fit(mean, std)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    ready = (x.numpy() - mean.numpy()) / std.numpy()
    expected = linear(numbers(projection), "linear", ready)
    np.testing.assert_allclose(projection(x).detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0, 1.0], r"mean for standardisation: expected shape \(2,\), received \(1,\)"),
        ([0.0, 0.0], [1.0], r"std for standardisation: expected shape \(2,\), received \(1,\)"),
        ([float("nan"), 0.0], [1.0, 1.0], "mean for standardisation holds NaN"),
        ([0.0, 0.0], [1.0, float("inf")], "std for standardisation holds NaN or infinite"),
    ],
)
def test_standardise_refuses(mean: list[float], std: list[float], message: str) -> None:
    standardise = Standardise(2)
    before = copy.deepcopy(standardise.state_dict())
    with pytest.raises(ValueError, match=message):
        standardise.fit(torch.tensor(mean), torch.tensor(std))
    assert all(torch.equal(before[key], value) for key, value in standardise.state_dict().items())


@pytest.mark.parametrize("kind", POOLINGS)
def test_pool_values(kind: str) -> None:
    torch.manual_seed(4)
    module = Pool(kind, 3).double()
    x = 3.0 * torch.randn(40, 6, 3, dtype=torch.float64)
    mask = torch.rand(40, 6) < 0.5
    mask[0] = False
    mask[1] = torch.tensor([False, False, False, True, False, False])
    mask[2] = True
    x[~mask] = 1e6
    pooled = module(x, mask).detach().numpy()
    p = {f"pool.{name}": value for name, value in numbers(module).items()}
    for b in range(40):
        real = x[b][mask[b]].numpy()
        expected = pool(p, "pool", real, kind) if len(real) else np.zeros(3)
        np.testing.assert_allclose(pooled[b], expected, rtol=0, atol=1e-12)
    assert torch.equal(module(x, mask)[1], x[1, 3])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"fusion": "sum"},
            "unknown fusion 'sum'; valid: concat, combine, attention, attention_concat, "
            "attention_combine, encoder, gated, lowrank, late",
        ),
        (
            {"fusion": "concat", "modality": "sound"},
            "unknown modality 'sound'; valid: both, text, image",
        ),
        (
            {"fusion": "combine", "pooling": "max"},
            "unknown pooling 'max'; valid: mean, first, attention",
        ),
        (
            {"fusion": "concat", "modality": "text", "pooling": "max"},
            "unknown pooling 'max'; valid: mean, first, attention",
        ),
        (
            {"fusion": "encoder", "image_pooling": "max"},
            "unknown pooling 'max'; valid: mean, first, attention",
        ),
        (
            {"fusion": "concat", "directions": "image"},
            "unknown directions 'image'; valid: text, both",
        ),
        (
            {"fusion": "concat", "norm": "batch"},
            "unknown norm 'batch'; valid: standardise, layer, none",
        ),
    ],
)
def test_unknown_names(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(text_in=6, image_in=5, text_dim=8, **flags)


@pytest.mark.parametrize("fusion", sorted(NEEDS_EQUAL_DIMS))
def test_unequal_dims(fusion: str) -> None:
    with pytest.raises(
        ValueError, match=f"fusion '{fusion}': .*received image_dim 8.* set image_dim to 16"
    ):
        build_model(fusion=fusion, text_in=6, image_in=5, text_dim=16, image_dim=8)


def test_fusions_that_take_unequal_dims() -> None:
    assert FUSIONS.keys() - NEEDS_EQUAL_DIMS == {
        *("concat", "attention_concat", "gated", "lowrank", "late")
    }


@pytest.mark.parametrize("heads", [0, 3])
@pytest.mark.parametrize("fusion", [*ATTENDING, "encoder"])
def test_dims_not_divisible_by_heads(fusion: str, heads: int) -> None:
    with pytest.raises(
        ValueError, match=f"received text_dim 16 and heads {heads}: change text_dim or heads"
    ):
        build_model(fusion=fusion, text_in=6, image_in=5, text_dim=16, heads=heads)


@pytest.mark.parametrize("fusion", sorted(FUSIONS.keys() - NEEDS_HEADS))
def test_heads_do_not_matter_without_attention(fusion: str) -> None:
    model = make(fusion, heads=3)
    assert torch.equal(model(*inputs("tokens"))[0], make(fusion)(*inputs("tokens"))[0])


def test_both_size_mistakes_come_in_one_message() -> None:
    with pytest.raises(ValueError, match=r"image_dim to 16 .*; .*text_dim or heads"):
        build_fusion("encoder", FusionConfig(text_dim=16, image_dim=8, heads=3))


@pytest.mark.parametrize("flag", ["layers", "rank"])
def test_counts_below_one(flag: str) -> None:
    with pytest.raises(ValueError, match=f"{flag}: at least 1 is needed, received 0"):
        build_fusion("concat", FusionConfig(text_dim=16, image_dim=16, **{flag: 0}))


@pytest.mark.parametrize("name", ["text", "image"])
def test_missing_inputs(name: str) -> None:
    batch = dict(zip(("text", "text_mask", "image", "image_mask"), inputs("tokens"), strict=True))
    del batch[name]
    with pytest.raises(ValueError, match=f"this model reads the {name}: it is required"):
        make("concat")(**batch)


def test_wrong_shapes() -> None:
    model = make("concat")
    text, text_mask, image, image_mask = inputs("tokens")
    with pytest.raises(ValueError, match=r"text features: expected \(batch, tokens, 6\), received"):
        model(text[:, :, 1:], text_mask, image, image_mask)
    with pytest.raises(ValueError, match=r"image features: .*5\), received \(4, 5\)"):
        model(text, text_mask, image[:, 0], image_mask)
    with pytest.raises(ValueError, match=r"image_mask: expected bool \(4, 7\), .*\(4, 6\)"):
        model(text, text_mask, image, image_mask[:, 1:])
    with pytest.raises(ValueError, match=r"text_mask: expected bool .*received torch.int64"):
        model(text, text_mask.long(), image, image_mask)
