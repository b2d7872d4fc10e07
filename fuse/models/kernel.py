"""Kernel logistic regression on pooled vectors: the strong classical model beside the fusions.

    K(x, y) = exp(−½ · mean over vectors b of |x_b − y_b|² / dim_b)
    logits(x) = K(x, landmarks) · L⁻ᵀ · W + bias,   L·Lᵀ = K(landmarks, landmarks) + ε·I

Vectors are standardised first. The kernel is a product of Gaussian ones, so text and image
interact. Landmarks are training rows; with all of them, W with weight decay is kernel logistic
regression, with fewer its Nyström approximation (Williams and Seeger 2000, "Using the Nyström
Method to Speed Up Kernel Machines"). Only W and the bias are trained, by the same loop, losses and
schedules as every other model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .classifier import FUSED, Classifier, Inputs
from .linear import Linear, linear
from .modality import modality_of
from .noise import Dropout
from .parts import Part, count
from .projection import Standardise

KERNEL = "kernel"
"""Name of this model among those of the fusions."""
JITTER = 1e-3
"""ε; rows that are doubled would make the kernel matrix singular."""
SCALE = 30.0
"""Features are multiplied by this: whitened ones have norm 1 at most, too little for Adam."""


class KernelClassifier(Classifier):
    """Reads vectors only; masks say which modalities a row has.

    A vector of a modality that a row lacks is left out of the mean over vectors.

    Args:
        vectors: features of each vector by name, which starts with its modality.
        classes: number of classes.
        landmarks: number of training rows that rows are compared with.
        dropout: probability with which a whitened feature is zeroed.
    """

    trains_fusion = False
    whitening: Tensor

    def __init__(
        self,
        vectors: Mapping[str, int],
        classes: int,
        landmarks: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: Standardise(dim) for name, dim in vectors.items()})
        for name, dim in vectors.items():  # as cached, in float16
            self.register_buffer(
                f"landmarks_{name}", torch.zeros(landmarks, dim, dtype=torch.float16)
            )
        self.register_buffer("whitening", torch.eye(landmarks))
        self._modalities = list(dict.fromkeys(map(modality_of, vectors)))
        self.landmarks = landmarks
        self.dropout = Dropout(dropout)
        self.weight = Linear(landmarks, classes)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    @property
    def inputs(self) -> list[str]:
        return list(self.norms)

    @property
    def standardisations(self) -> dict[str, Standardise]:
        return {n: norm for n, norm in self.norms.items() if isinstance(norm, Standardise)}

    @torch.no_grad()
    def fit_landmarks(self, vectors: Mapping[str, Tensor]) -> None:
        for name in self.norms:
            getattr(self, f"landmarks_{name}").copy_(vectors[name])
        read = len(self._modalities)
        whole = torch.ones(self.landmarks, read, dtype=torch.bool, device=self.whitening.device)
        kernel = self._kernel(vectors, whole).double()
        eye = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
        lower = torch.linalg.cholesky(kernel + JITTER * eye)
        self.whitening.copy_(torch.linalg.solve_triangular(lower, eye, upper=False).T)

    @torch.no_grad()
    def fold(self) -> None:
        # The whitening goes into the weights; the size becomes a tenth.
        if len(self.whitening):
            self.weight.weight.copy_(SCALE * self.weight.weight @ self.whitening.T)
            self.whitening = self.whitening.new_empty(0, 0)

    def _kernel(self, vectors: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """``(batch, landmarks)``; `present`, ``(batch, read)``, says which modalities a row has."""
        total = weight = torch.zeros((), device=self.whitening.device)
        for name, norm in self.norms.items():
            x = norm(vectors[name].to(self.whitening.dtype))
            y = norm(getattr(self, f"landmarks_{name}").to(self.whitening.dtype))
            square = x.square().sum(1, keepdim=True) - 2 * linear(x, y) + y.square().sum(1)
            column = self._modalities.index(modality_of(name))
            there = present[:, column : column + 1].to(x.dtype)
            total = total + there * square / x.shape[1]
            weight = weight + there
        return torch.exp(-0.5 * total / weight.clamp_min(1.0))

    def fuse(
        self, inputs: Inputs, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """See `Classifier.fuse`.

        Returns:
            The whitened kernel features ``(batch, landmarks)``, of a folded model the kernel
            itself; which modalities a row has, ``(batch, read)``; nothing else.
        """
        vectors = inputs.vectors
        if FUSED in vectors:
            return vectors[FUSED], None, {}
        masks = {"text": inputs.text_mask, "image": inputs.image_mask}
        rows = next(iter(vectors.values())).shape[:1]
        every = self.whitening.new_ones(rows, dtype=torch.bool)
        read = [masks[name] for name in self._modalities]
        present = torch.stack([every if m is None else m.any(dim=1) for m in read], dim=1)
        fused = self._kernel(vectors, present)
        if len(self.whitening):
            fused = linear(SCALE * fused, self.whitening.T)
        return fused, present, {}

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        logits: Tensor = self.weight(self.dropout(fused))
        return logits

    def parts(self) -> list[Part]:
        shape = f"exp(−½ · mean of |x − y|² / dim) of {', '.join(self.inputs)}, whitened"
        inside, outside = self.weight.in_features, self.weight.out_features
        return [
            Part("kernel", shape, ("batch", inside), 0),
            Part("weight", f"linear {inside} → {outside}", ("batch", outside), count(self.weight)),
        ]
