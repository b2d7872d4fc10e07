"""Multi-head attention and encoder layers, with dropout from the noise of the call.

"Attention Is All You Need" (Vaswani et al. 2017), eq. 1. Names, shapes and initial values of the
parameters are those of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`. These modules
themselves draw dropout inside a kernel, out of reach of `noise.noise_from`.

A mask is ``(batch, keys)``, boolean, True = real position; None: all are real.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

# Tells a tensor inside `vmap` or `grad`; torch.func has no public name for it.
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional as F

from fuse.mapping import call_for_members, is_mapped

from .linear import Linear, linear
from .noise import Dropout


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads.

    Args:
        dim: features of queries, keys and output; divisible by `heads`.
        heads: number of heads.
        dropout: probability with which an attention weight is zeroed in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.num_heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attends over keys, which are also the values.

        Args:
            query: ``(batch, queries, dim)``.
            key: ``(batch, keys, dim)``.
            mask: ``(batch, keys)``, True = real position; None: all are real.
            need_weights: also return the weights. Like active dropout, this rules out PyTorch's
                fused kernel.

        Returns:
            ``(batch, queries, dim)``, zero in rows without a real key, and the weights
            ``(batch, queries, keys)`` averaged over the heads, or None. In eval mode the weights
            of a row sum to 1 over its real keys; in training mode they are those after dropout. In
            a row without a real key they are zero.
        """
        w_query, w_key_value = self.in_proj_weight.split([self.dim, 2 * self.dim])
        b_query, b_key_value = self.in_proj_bias.split([self.dim, 2 * self.dim])
        q = self._by_head(linear(query, w_query, b_query))
        k, v = map(self._by_head, linear(key, w_key_value, b_key_value).chunk(2, dim=2))
        allowed = empty = None
        if mask is not None:
            # A softmax over no key is NaN, so a row without a real key attends to all keys. It is
            # zeroed at the end.
            empty = ~mask.any(dim=1)[:, None, None]
            allowed = (mask.unsqueeze(1) | empty).unsqueeze(1)
        weights = None
        if is_mapped(q) and not (need_weights or self.dropout.active):
            attended = call_for_members(_stacked_attention, q, k, v, allowed)
        elif need_weights or self.dropout.active or is_functorch_wrapped_tensor(q):
            scores = q @ k.transpose(2, 3) * (self.dim // self.num_heads) ** -0.5
            if allowed is not None:
                scores = scores.masked_fill(~allowed, -torch.inf)
            head_weights = self.dropout(scores.softmax(dim=3))
            attended = head_weights @ v
            if need_weights:
                weights = head_weights.mean(dim=1)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, allowed)
        joined = self.out_proj(attended.transpose(1, 2).flatten(2))
        if empty is not None:
            joined = joined.masked_fill(empty, 0.0)
            weights = None if weights is None else weights.masked_fill(empty, 0.0)
        return joined, weights

    def _by_head(self, x: Tensor) -> Tensor:
        """``(batch, positions, dim)`` to ``(batch, heads, positions, dim / heads)``."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """The sizes, for ``print(model)``."""
        return f"dim={self.dim}, heads={self.num_heads}"


def _stacked_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """PyTorch's fused kernel, called once for all members, ``(members, batch, heads, …)`` each."""
    attended = F.scaled_dot_product_attention(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        None if allowed is None else allowed.flatten(0, 1),
    )
    return attended.unflatten(0, q.shape[:2])


class EncoderLayer(nn.Module):
    """x ← norm(x + attention(x)); x ← norm(x + feed-forward(x)): post-norm, ReLU.

    Args:
        dim: features of a position; divisible by `heads`.
        heads: number of heads.
        ffn: hidden units of the feed-forward part.
        dropout: probability, of attention weights, hidden units and both residual branches.
    """

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(dim, heads, dropout)
        self.linear1 = Linear(dim, ffn)
        self.linear2 = Linear(ffn, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """``(batch, positions, dim)`` to the same, and the weights of `MultiHeadAttention`."""
        attended, weights = self.self_attn(x, x, mask, need_weights)
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm2(x + self.dropout(self.linear2(hidden))), weights


class EncoderStack(nn.Module):
    """A sequence of encoder layers that all start from the same weights.

    So does PyTorch's `nn.TransformerEncoder`, which the report uses.

    Args:
        layers: number of layers.
        dim: features of a position; divisible by `heads`.
        heads: number of heads.
        ffn: hidden units of the feed-forward part of a layer.
        dropout: probability, see `EncoderLayer`.
    """

    def __init__(self, layers: int, dim: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        layer = EncoderLayer(dim, heads, ffn, dropout)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(layers))

    def forward(
        self, x: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes.

        Args:
            x: ``(batch, positions, dim)``.
            mask: ``(batch, positions)``, True = real position; None: all are real.
            need_weights: also return the attention weights.

        Returns:
            ``(batch, positions, dim)`` and the weights ``(batch, layers, positions, positions)``,
            averaged over the heads, or None.
        """
        of_layers = []
        for layer in self.layers:
            x, weights = layer(x, mask, need_weights)
            of_layers.append(weights)
        return x, torch.stack(of_layers, dim=1) if need_weights else None
