"""Logistic regression on fixed features of pooled vectors, a strong classical model.

    D(x, y) = Σ_b w_b·|x_b − y_b|²/dim_b / Σ_b w_b        over the vectors b that x has

    rbf     K(x, y) = exp(−bandwidth · D(x, y))
            logits(x) = K(x, landmarks) · L⁻ᵀ · W + bias,   L·Lᵀ = K(landmarks, landmarks) + ε·I
    linear  logits(x) = φ(x) · W + bias,   φ_b(x) = √(w_b/dim_b)·x_b,
            which is the kernel K(x, y) = Σ_b w_b·⟨x_b, y_b⟩/dim_b

Vectors are standardised first; each has the same weight whatever its length. w_b is 1 for text and
``image_weight`` for image vectors, times ``other_weight`` for those of a further encoder. ``rbf``
is a product of Gaussian kernels, so text and image interact. Landmarks are training rows. If all
rows are landmarks, W with an L2 penalty is kernel logistic regression; with fewer it is the Nyström
approximation (Williams and Seeger 2000, "Using the Nyström Method to Speed Up Kernel Machines").
Only W and the bias are trained: to the optimum with ``optimiser = "lbfgs"``, see
`fuse.training.solver`, or by the training loop of all models.

A trained ``rbf`` model stores its landmarks in float16, 2 bytes a feature: 3,200 rows of 1,933
features take 12 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from fuse.mapping import is_mapped
from mmsa_cache.names import pool_of

from .classifier import FUSED, Classifier, Inputs
from .linear import Linear, linear
from .modality import modality_of
from .noise import Dropout
from .parts import ModelPart, count
from .projection import Standardise
from .squares import squared_distances

KERNEL = "kernel"
"""Name of this model among the fusions."""
Kernel = Literal["rbf", "linear"]
JITTER = 1e-3
"""ε; without it repeated rows would make the kernel matrix singular."""
_ROWS = 512
SCALE = 30.0
"""Factor of the features of ``rbf``: whitened ones have norm 1 at most, too small for Adam."""


class KernelClassifier(Classifier):
    """The kernel model. It reads vectors only; masks say which modalities a row has.

    Vectors of a missing modality are left out of the mean over vectors, and are zero in the
    features of ``linear``. In landmarks they are replaced by their mean.

    Args:
        vectors: features of each vector by name, which starts with its modality.
        classes: number of classes.
        landmarks: number of training rows that rows are compared with; ``linear`` has none.
        dropout: probability with which a feature is zeroed.
        kernel: ``rbf`` or ``linear``.
        bandwidth: bandwidth of ``rbf``.
        image_weight: weight of each image vector.
        other_weight: additional factor for vectors of encoders other than the modality's first.
    """

    trains_fusion = False
    whitening: Tensor

    def __init__(
        self,
        vectors: Mapping[str, int],
        classes: int,
        landmarks: int,
        dropout: float,
        kernel: Kernel = "rbf",
        bandwidth: float = 0.5,
        image_weight: float = 1.0,
        other_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: Standardise(dim) for name, dim in vectors.items()})
        self._modalities = list(dict.fromkeys(map(modality_of, vectors)))
        # Adjacent vectors of one modality and weight: index of the modality, names, weight.
        self._groups = [
            (
                self._modalities.index(modality),
                list(names),
                (image_weight if modality == "image" else 1.0) * (other_weight if other else 1.0),
            )
            for (modality, other), names in groupby(
                vectors, lambda name: (modality_of(name), "." in pool_of(name))
            )
        ]
        self.landmarks = landmarks if kernel == "rbf" else 0
        self.bandwidth, self.scale = bandwidth, SCALE if self.landmarks else 1.0
        for name, dim in vectors.items() if self.landmarks else ():  # as in a store, float16
            self.register_buffer(
                f"landmarks_{name}", torch.zeros(landmarks, dim, dtype=torch.float16)
            )
        self.register_buffer("whitening", torch.eye(self.landmarks))
        self.dropout = Dropout(dropout)
        self.weight = Linear(self.landmarks or sum(vectors.values()), classes)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    @property
    def inputs(self) -> list[str]:
        return list(self.norms)

    @property
    def standardisations(self) -> dict[str, Standardise]:
        return {n: norm for n, norm in self.norms.items() if isinstance(norm, Standardise)}

    @torch.no_grad()
    def fit_landmarks(self, vectors: Mapping[str, Tensor]) -> Tensor:
        for name in self.norms:
            setattr(self, f"landmarks_{name}", vectors[name].clone())
        shape = self.landmarks, len(self._modalities)
        present = torch.ones(shape, dtype=torch.bool, device=self.whitening.device)
        landmarks = self._landmark_vectors()
        kernel = self._kernel(landmarks, landmarks, present)
        kernel.diagonal().add_(JITTER)
        lower = torch.linalg.cholesky(kernel)
        del kernel
        self.whitening.copy_(_inverse(lower).T)
        # K·L⁻ᵀ, as K = L·Lᵀ − ε·I; by parts, since each matrix has landmarks² entries
        for part, white in zip(lower.split(_ROWS), self.whitening.split(_ROWS), strict=True):
            part.sub_(JITTER * white).mul_(self.scale)
        return lower

    @torch.no_grad()
    def fold(self) -> None:
        # The weights absorb the whitening, which makes the model a tenth of the size.
        if len(self.whitening):
            self.weight.weight.copy_(SCALE * self.weight.weight @ self.whitening.T)
            self.whitening = self.whitening.new_empty(0, 0)

    def _weights(self, present: Tensor) -> list[Tensor]:
        """w of each group of vectors, ``(batch, 1)``, 0 for rows without their modality.

        Args:
            present: which modalities a row has, ``(batch, read)``.
        """
        factors = present.to(self.weight.weight.dtype)
        return [factors[:, index : index + 1] * weight for index, _, weight in self._groups]

    def _block(self, vectors: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
        """Concatenates standardised vectors, each divided by √dim, to ``(batch, features)``."""
        blocks = []
        for name in names:
            block = self.norms[name](vectors[name].to(self.weight.weight.dtype))
            blocks.append(block.mul_(block.shape[1] ** -0.5))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def _linear(self, vectors: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """φ, ``(batch, features)``; for `present` see `_weights`."""
        parts = zip(self._groups, self._weights(present), strict=True)
        return torch.cat([w.sqrt() * self._block(vectors, names) for (_, names, _), w in parts], 1)

    def _landmark_vectors(self) -> dict[str, Tensor]:
        return {name: getattr(self, f"landmarks_{name}") for name in self.norms}

    def _kernel(
        self, vectors: Mapping[str, Tensor], landmarks: Mapping[str, Tensor], present: Tensor
    ) -> Tensor:
        """K, ``(batch, landmarks)``; for `present` see `_weights`."""
        groups = list(zip(self._groups, self._weights(present), strict=True))
        weight = torch.stack([w * len(names) for (_, names, _), w in groups]).sum(0)
        rate = -self.bandwidth / torch.where(weight > 0, weight, 1.0)
        total: Tensor | None = None
        for (_, names, _), w in groups:
            norms = [self.norms[name].get_buffer(b) for name in names for b in ("mean", "scale")]
            read = [*norms, *(x[name] for x in (vectors, landmarks) for name in names)]
            square = squared_distances(partial(self._block, names=names), vectors, landmarks, read)
            if total is None:
                total = w * rate * square
            elif is_mapped(total):  # `vmap` has no rule for the operation in place
                total = torch.addcmul(total, w * rate, square)
            else:
                total.addcmul_(w * rate, square)
        assert total is not None
        return total.exp_()

    def fuse(
        self, inputs: Inputs, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """See `Classifier.fuse`.

        Returns:
            The whitened kernel features ``(batch, landmarks)`` (in a folded model the kernel
            itself, for ``linear`` φ ``(batch, features)``); which modalities a row has,
            ``(batch, read)``; no intermediates.
        """
        vectors = inputs.vectors
        if FUSED in vectors:
            return vectors[FUSED], None, {}
        masks = {"text": inputs.text_mask, "image": inputs.image_mask}
        rows = next(iter(vectors.values())).shape[:1]
        all_rows = self.whitening.new_ones(rows, dtype=torch.bool)
        read = [masks[name] for name in self._modalities]
        present = torch.stack([all_rows if m is None else m.any(dim=1) for m in read], dim=1)
        if not self.landmarks:
            return self._linear(vectors, present), present, {}
        fused = self._kernel(vectors, self._landmark_vectors(), present)
        if len(self.whitening):
            fused = linear(SCALE * fused, self.whitening.T)
        return fused, present, {}

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        logits: Tensor = self.weight(self.dropout(fused))
        return logits

    def parts(self) -> list[ModelPart]:
        distances = f"|x − y|² / dim) of {', '.join(self.inputs)}"
        computes = f"exp(−{self.bandwidth:g} · mean of {distances}, whitened"
        if not self.landmarks:
            computes = f"standardised {' + '.join(self.inputs)}"
        inside, outside = self.weight.in_features, self.weight.out_features
        return [
            ModelPart("kernel", computes, ("batch", inside), 0),
            ModelPart(
                "weight", f"linear {inside} → {outside}", ("batch", outside), count(self.weight)
            ),
        ]


def _inverse(lower: Tensor) -> Tensor:
    """L⁻¹, ``(landmarks, landmarks)``; on the CPU LAPACK is faster than anything in PyTorch."""
    if lower.device.type != "cpu":
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return torch.linalg.solve_triangular(lower, eye, upper=False)
    from scipy.linalg import get_lapack_funcs  # not needed for predictions

    (trtri,) = get_lapack_funcs(("trtri",), [lower.numpy()])
    inverse, _ = trtri(lower.numpy(), lower=1)
    return torch.from_numpy(inverse)
