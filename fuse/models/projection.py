"""From cached features to the inputs of a fusion: normalise, project, pool.

Axis names are the same everywhere: ``(batch, tokens, dim)`` for a sequence, ``(batch, dim)`` for a
vector. A mask is ``(batch, tokens)``, boolean, **True = real position**; None: all are real.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmsa_cache.names import check_name

from .linear import Linear
from .noise import Dropout

Norm = Literal["standardise", "layer", "none"]
NORMS: tuple[Norm, ...] = get_args(Norm)
Pooling = Literal["mean", "first", "attention"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

STD_FLOOR = 1e-3
"""Smallest divisor of `Standardise`, in feature units: the resolution of float16 near 1.

A feature that varies less over the training split is rounding noise, which a smaller divisor would
amplify.
"""


class Standardise(nn.Module):
    """Per-feature ``(x − mean) / scale`` with mean and scale of the training split.

    The buffers start at 0 and 1, so an unfitted module is the identity. They are saved with the
    model.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Sets mean and scale.

        Args:
            mean: ``(dim,)``, feature means over real positions of the training split.
            std: ``(dim,)``, standard deviations in the same units; at least `STD_FLOOR` is used.

        Raises:
            ValueError: a shape differs from ``(dim,)`` or a figure is not finite.
        """
        for name, figures in (("mean", mean), ("std", std)):
            if figures.shape != self.mean.shape:
                raise ValueError(
                    f"{name} for standardisation: expected shape {tuple(self.mean.shape)}, "
                    f"received {tuple(figures.shape)}"
                )
            if not bool(torch.isfinite(figures).all()):
                raise ValueError(f"{name} for standardisation holds NaN or infinite figures")
        self.mean.copy_(mean)
        self.scale.copy_(std.to(self.scale).clamp_min(STD_FLOOR))

    def forward(self, x: Tensor) -> Tensor:
        """``(…, dim)`` to ``(…, dim)``."""
        if torch.is_autocast_enabled(x.device.type):  # one pass, with other rounding
            return torch.addcmul(-self.mean / self.scale, x, 1 / self.scale)
        return (x - self.mean).div_(self.scale)


class Projection(nn.Module):
    """[Standardise or LayerNorm] → Dropout → Linear, position by position.

    Features may be float16, as in the cache; they are cast to the dtype of the weights.

    Args:
        in_dim: features of the encoder (768 for BERT base, 1024 for SwinV2 base).
        out_dim: features of the output.
        norm: ``standardise``, a `Standardise` that must be fitted before training; ``layer``, layer
            normalisation over the features of a position; or ``none``.
        input_dropout: probability with which an input feature is zeroed in training.
        shared_input_dropout: one dropout mask a row, shared by all its positions. It needs only the
            noise of one position, which is much cheaper on sequences.

    Raises:
        ValueError: unknown norm.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        norm: str,
        input_dropout: float,
        shared_input_dropout: bool,
    ) -> None:
        super().__init__()
        check_name("norm", norm, NORMS)
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.norm = norm
        self.shared_input_dropout = shared_input_dropout
        self.standardise = Standardise(in_dim) if norm == "standardise" else None
        # Without weights, which the linear layer has already.
        self.layer_norm = (
            nn.LayerNorm(in_dim, elementwise_affine=False) if norm == "layer" else None
        )
        self.dropout = Dropout(input_dropout)
        self.linear = Linear(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, in_dim)`` to ``(batch, tokens, out_dim)``, or both without tokens."""
        if self.standardise is not None:
            x = self.standardise(x)  # casts by itself
        x = x.to(self.linear.weight.dtype)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        shared = self.shared_input_dropout and x.ndim == 3
        x = self.dropout(x, (x.shape[0], 1, x.shape[2]) if shared else None)
        projected: Tensor = self.linear(x)
        return projected


def as_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask ``(batch, tokens)`` of a sequence ``(batch, tokens, dim)``; of ones for None."""
    return x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask


class Pool(nn.Module):
    """Pools the real positions of a sequence to one vector.

    A row without any real position pools to zeros, one with a single real position to exactly that
    position, whatever the kind.

    Args:
        kind: ``mean`` over the real positions; ``first``, the first real position (``[CLS]`` of a
            text, the top-left patch of an image without a class token); ``attention``, softmax
            over the real positions of a learned linear score ``a · x`` (a bias would cancel).
        dim: features of a position; used by ``attention`` only.

    Raises:
        ValueError: unknown kind.
    """

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        check_name("pooling", kind, POOLINGS)
        self.kind = kind
        self.score = Linear(dim, 1, bias=False) if kind == "attention" else None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Pools.

        Args:
            x: ``(batch, tokens, dim)``.
            mask: ``(batch, tokens)``, True = real position; None: all are real.

        Returns:
            ``(batch, dim)``.
        """
        # At the pooled level steps must be fast.
        single = x.shape[1] == 1 and self.score is None
        if mask is None:
            if single:
                return x.squeeze(1)
            if self.kind == "first":
                return x[:, 0]
            if self.score is not None:
                return (self.score(x).softmax(dim=1) * x).sum(dim=1)
            return x.mean(dim=1)
        padding = ~mask.unsqueeze(-1)
        x = x.masked_fill(padding, 0.0)
        if single:
            return x.squeeze(1)
        if self.kind == "first":
            # argmax returns the first maximum; in an empty row that is a zeroed position.
            first = mask.int().argmax(dim=1)[:, None, None]
            return x.gather(1, first.expand(-1, -1, x.shape[2])).squeeze(1)
        if self.score is not None:
            scores = self.score(x)
            # A finite floor instead of −inf: a row of −inf alone would give NaN.
            scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
            weights = scores.softmax(dim=1).masked_fill(padding, 0.0)
            return (weights * x).sum(dim=1)
        return x.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)

    def extra_repr(self) -> str:
        """The kind, for ``print(model)``."""
        return self.kind
