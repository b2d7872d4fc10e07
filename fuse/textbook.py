"""A textbook script of the report's model, which ours is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mmsa_cache.features.bank import FeatureBank

from .setting import Setting

BATCH = 32


class Textbook:
    """A textbook training loop: TensorDataset, DataLoader, unfused Adam, PyTorch's modules.

    Its loss is the same as ours, by autograd.
    """

    def __init__(self, bank: FeatureBank, setting: Setting, names: Sequence[str]) -> None:
        self._device = bank.labels.device
        items = bank.items(np.arange(len(bank)), variants=True)
        tensors = []
        for features, column in ((bank.text, 1), (bank.image, 2)):
            values = features.vectors(items[:, column].clamp_min(0), "mean").float().cpu()
            tensors.append((values - values.mean(0)) / values.std(0).clamp_min(1e-3))
        labels = bank.labels.cpu()[items[:, 0]]
        self._loader = DataLoader(TensorDataset(*tensors, labels), BATCH, shuffle=True)
        torch.manual_seed(0)
        self._model = _ReportConcat(
            tensors[0].shape[1], tensors[1].shape[1], setting, len(names)
        ).to(self._device)
        self._loss = ReportLoss(len(names), setting.alpha, setting.beta).to(self._device)
        self._optimiser = torch.optim.Adam(
            self._model.parameters(),
            lr=setting.learning_rate,
            weight_decay=setting.weight_decay,
            foreach=False,
        )

    def epoch(self) -> float:
        """One epoch; returns its mean loss."""
        self._model.train()
        total = 0.0
        for text, image, labels in self._loader:
            text, image = text.to(self._device), image.to(self._device)
            logits = self._model(text, image)
            loss = self._loss(logits, labels.to(self._device))
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            total += loss.item()
        return total / len(self._loader)


class _ReportConcat(nn.Module):
    """The report's concat model, as a script would write it."""

    def __init__(self, text_in: int, image_in: int, setting: Setting, classes: int) -> None:
        super().__init__()
        self.text = nn.Linear(text_in, setting.text_dim)
        self.image = nn.Linear(image_in, setting.image_dim)
        layers: list[nn.Module] = []
        dim = setting.text_dim + setting.image_dim
        for hidden in setting.head_dims():
            layers += [nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU()]
            layers += [nn.Dropout(setting.dropout)]
            dim = hidden
        self.head = nn.Sequential(*layers, nn.Linear(dim, classes))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.text(text), self.image(image)], 1))
        return logits


class ReportLoss(nn.Module):
    """`AdaptiveClassBalancedLoss` with the report's defaults, as a script would write it.

    Args:
        classes: Number of classes.
        alpha: Weight of the focal part.
        beta: Weight of the margin part.
    """

    wrong: Tensor
    count: Tensor

    def __init__(self, classes: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.register_buffer("wrong", torch.zeros(classes))
        self.register_buffer("count", torch.zeros(classes))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        p = logits.softmax(1)
        p_t = p.gather(1, labels.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            self.wrong.index_add_(0, labels, 1 - p_t)
            self.count += torch.bincount(labels, minlength=len(self.count))
            difficulty = torch.log1p(self.wrong / self.count.clamp_min(1))[labels]
        weight, gamma = 1 + 5 * difficulty, 1.5 + 3 * difficulty
        focal = (weight * (1 - p_t) ** gamma * -torch.log(p_t)).mean()
        top = p.topk(2, dim=1).values
        boundary = torch.exp(-2 * (top[:, 0] - top[:, 1]).mean())
        return self.alpha * focal + self.beta * boundary
