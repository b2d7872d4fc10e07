"""The summary of a model against the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fuse.models.builder import build_model
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KernelClassifier
from fuse.models.summary import summarise

SIZES = {"batch": 4, "text_tokens": 5, "patches": 7}
VECTORS = {"text_vector": 4, "image_vector": 3}


@pytest.mark.parametrize("directions", ["text", "both"])
@pytest.mark.parametrize("modality", ["both", "text", "image"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_shapes_and_parameters_are_those_of_the_model(
    fusion: str, modality: str, directions: str
) -> None:
    model = build_model(
        fusion=fusion,
        modality=modality,
        text_in=6,
        image_in=5,
        beside=VECTORS,
        text_dim=8,
        heads=2,
        layers=2,
        ffn=12,
        directions=directions,
        modality_embeddings=directions == "both",
        pooling="attention",
        head_dims=(7, 5),
    ).eval()
    *parts, total = summarise(model)
    seen: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, args: Any, result: Any) -> None:
            seen[name] = tuple((result[0] if isinstance(result, tuple) else result).shape)

        return hook

    for part in parts:
        model.get_submodule(part.part).register_forward_hook(watch(part.part))
    model(
        torch.randn(4, 5, 6),
        torch.ones(4, 5, dtype=torch.bool),
        torch.randn(4, 7, 5),
        torch.ones(4, 7, dtype=torch.bool),
        {name: torch.randn(4, features) for name, features in VECTORS.items()},
    )
    for part in parts:
        assert seen[part.part] == tuple(SIZES.get(axis, axis) for axis in part.shape), part
    assert total.part == "total"
    assert total.shape == ("batch", 3)
    every = sum(parameter.numel() for parameter in model.parameters())
    assert total.parameters == every == sum(part.parameters for part in parts)


def test_what_a_summary_says() -> None:
    model = build_model(
        fusion="attention_concat",
        text_in=768,
        image_in=1024,
        beside={"image_vector": 1280},
        text_dim=256,
        image_dim=128,
        input_dropout=0.1,
        shared_input_dropout=True,
        norm="standardise",
        directions="both",
    )
    rows = [(row.part, row.computes, row.shape, row.parameters) for row in summarise(model)]
    inputs = "standardise → dropout 0.1, one mask a row → linear"
    attention = 256 * 768 + 768 + 256 * 256 + 256
    fused = 3 * 256 + 128
    head = (fused + 128) * 1024 + 1024 * 3 + 1024 * 256 + 256 * 3 + 256 * 3 + 3
    assert rows[:5] == [
        (
            "text_projection",
            f"{inputs} 768 → 256",
            ("batch", "text_tokens", 256),
            769 * 256,
        ),
        ("image_projection", f"{inputs} 1024 → 128", ("batch", "patches", 128), 1025 * 128),
        ("beside.image_vector", f"{inputs} 1280 → 128", ("batch", 128), 1281 * 128),
        (
            "fusion",
            "[pool(t) ; pool(v) ; pool(MHA(t, P·v, P·v)) ; pool(MHA(P·v, t, t))]",
            ("batch", fused),
            129 * 256 + 2 * attention,
        ),
        (
            "head",
            f"linear {fused + 128} → 1024 → 256 → 3, batch norm, leaky ReLU, dropout 0.25 between",
            ("batch", 3),
            head,
        ),
    ]


def test_what_a_summary_says_of_a_kernel() -> None:
    dims = {"text_mean": 5, "image_mean": 4}
    for kernel, computes, features in (
        ("rbf", "exp(−0.5 · mean of |x − y|² / dim) of text_mean, image_mean, whitened", 10),
        ("linear", "standardised text_mean + image_mean", 9),
    ):
        model = KernelClassifier(dims, 3, 10, 0.0, kernel)
        weights = features * 3 + 3
        rows = [(row.part, row.computes, row.shape, row.parameters) for row in summarise(model)]
        assert rows == [
            ("kernel", computes, ("batch", features), 0),
            ("weight", f"linear {features} → 3", ("batch", 3), weights),
            ("total", "logits", ("batch", 3), weights),
        ]


@pytest.mark.parametrize(
    ("flags", "part", "computes"),
    [
        ({"fusion": "concat"}, "text_projection", "linear 6 → 8"),
        ({"fusion": "concat", "norm": "layer"}, "text_projection", "layer → linear 6 → 8"),
        ({"fusion": "concat", "head_dims": ()}, "head", "linear 16 → 3"),
        ({"modality": "text", "pooling": "first"}, "pool", "first of the real text_tokens"),
        ({"modality": "image"}, "pool", "mean of the real patches"),
        (
            {"fusion": "late"},
            "head",
            "log of the average class probabilities of the modalities present",
        ),
        (
            {"fusion": "late", "head_dims": (4,)},
            "head.text",
            "linear 8 → 4 → 3, batch norm, leaky ReLU, dropout 0.25 between",
        ),
        ({"fusion": "attention"}, "fusion", "pool(MHA(t, v, v))"),
        (
            {"fusion": "attention", "directions": "both"},
            "fusion",
            "[pool(MHA(t, v, v)) ; pool(MHA(v, t, t))]",
        ),
        (
            {"fusion": "attention_combine"},
            "fusion",
            "pool(t) + pool(v) + pool(MHA(t, v, v))",
        ),
        (
            {"fusion": "lowrank", "rank": 3},
            "fusion",
            "Σ_i (W_i·[pool(t) ; 1])∘(V_i·[pool(v) ; 1]), i = 1…3",
        ),
        (
            {"fusion": "encoder", "modality_embeddings": True},
            "fusion",
            "mean(TransformerEncoder([t + e_t ; v + e_v])), 6 layers",
        ),
    ],
)
def test_words_of_a_part(flags: dict[str, Any], part: str, computes: str) -> None:
    with torch.device("meta"):
        model = build_model(text_in=6, image_in=5, text_dim=8, ffn=16, **flags)
    (row,) = (row for row in summarise(model) if row.part == part)
    assert row.computes == computes
