"""Fusions of two pooled vectors; see `fusions` for the table of all."""

from __future__ import annotations

import torch

from .fusion import Fused, Fusion, FusionConfig, Pair
from .linear import Linear


class Concat(Fusion):
    """[pool(t) ; pool(v)]; the two may differ in length."""

    computes = "[pool(t) ; pool(v)]"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.out_dim = config.text_dim + config.image_dim
        self.text_pool, self.image_pool = config.pools()

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        t, v = self.pooled(pair)
        return torch.cat([t, v], dim=1), {"text": t, "image": v}


class Combine(Fusion):
    """pool(t) + pool(v)."""

    equal_dims = True
    computes = "pool(t) + pool(v)"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.out_dim = config.text_dim
        self.text_pool, self.image_pool = config.pools()

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        t, v = self.pooled(pair)
        return t + v, {"text": t, "image": v}


class Gated(Fusion):
    """Gated multimodal unit: Arevalo et al. 2017, "Gated Multimodal Units for Information Fusion".

    z ∘ tanh(W_v·v) + (1 − z) ∘ tanh(W_t·t) with z = σ(W_z·[v ; t]) and t, v pooled: their unit
    for two modalities, without biases as in the paper. A missing modality, whose vector is zero,
    adds nothing.
    """

    computes = "z∘tanh(W_v·pool(v)) + (1−z)∘tanh(W_t·pool(t)), z = σ(W_z·[pool(v) ; pool(t)])"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.out_dim = config.text_dim
        self.text_pool, self.image_pool = config.pools()
        text_dim, image_dim = config.text_dim, config.image_dim
        self.text_linear = Linear(text_dim, text_dim, bias=False)
        self.image_linear = Linear(image_dim, text_dim, bias=False)
        self.gate = Linear(image_dim + text_dim, text_dim, bias=False)

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        t, v = self.pooled(pair)
        z = self.gate(torch.cat([v, t], dim=1)).sigmoid()
        fused = z * self.image_linear(v).tanh() + (1 - z) * self.text_linear(t).tanh()
        return fused, {"text": t, "image": v, "gate": z}


class LowRank(Fusion):
    """Low-rank tensor fusion: Liu et al. 2018, "Efficient Low-rank Multimodal Fusion".

    Σ_i (W_i·[t ; 1]) ∘ (V_i·[v ; 1]) over i = 1…rank: a bilinear form whose weight tensor has that
    rank; the appended ones keep the terms of t and v alone. They are the biases of two linear
    layers, which hold the factors of all i one after another.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.out_dim = config.text_dim
        self.computes = f"Σ_i (W_i·[pool(t) ; 1])∘(V_i·[pool(v) ; 1]), i = 1…{config.rank}"
        self.rank = config.rank
        self.text_pool, self.image_pool = config.pools()
        factors = config.rank * config.text_dim
        self.text_factors = Linear(config.text_dim, factors)
        self.image_factors = Linear(config.image_dim, factors)

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        t, v = self.pooled(pair)
        products = self.text_factors(t) * self.image_factors(v)
        return products.unflatten(1, (self.rank, -1)).sum(dim=1), {"text": t, "image": v}


class Late(Concat):
    """[pool(t) ; pool(v)], kept apart: each has a head, whose class probabilities are averaged."""

    computes = "[pool(t) ; pool(v)], a head each"
    separate_heads = True
