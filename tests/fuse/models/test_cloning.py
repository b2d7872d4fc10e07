"""Copies of modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fuse.models.builder import build_model
from fuse.models.classifier import Classifier
from fuse.models.cloning import clone
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL, KernelClassifier

VECTORS = {"text_mean": 5, "image_mean": 6}


def made(fusion: str) -> Classifier:
    if fusion == KERNEL:
        return KernelClassifier(VECTORS, 3, landmarks=7, dropout=0.1)
    return build_model(
        fusion=fusion, text_in=5, image_in=6, beside=VECTORS, text_dim=8, heads=2, layers=2, ffn=8,
        head_dims=(4,), norm="standardise",
    )  # fmt: skip


def storages(module: nn.Module) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in module.state_dict().values()}


@pytest.mark.parametrize("fusion", [*FUSIONS, KERNEL])
def test_a_copy_is_equal_and_stands_alone(fusion: str) -> None:
    model = made(fusion).train()
    twin = clone(model)
    assert repr(twin) == repr(copy.deepcopy(model))
    assert twin.training
    for name, value in copy.deepcopy(model).state_dict().items():
        assert torch.equal(twin.state_dict()[name], value), name
    assert not storages(model) & storages(twin)
    before = copy.deepcopy(model.state_dict())
    text, image = torch.randn(4, 3, 5), torch.randn(4, 2, 6)
    vectors = {name: torch.randn(4, size) for name, size in VECTORS.items()}
    given = (text, None, image, None, vectors)
    assert torch.equal(model.eval()(*given)[0], twin.eval()(*given)[0])
    logits, _ = twin.train()(*given)
    logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == []
    with torch.no_grad():
        for value in twin.parameters():
            value.add_(1.0)
    twin.fold()
    assert twin.training
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_on_meta_nothing_is_copied() -> None:
    twin = clone(made("encoder"), "meta")
    assert {value.device.type for value in twin.state_dict().values()} == {"meta"}
    assert [p.requires_grad for p in twin.parameters()] == [True] * len(list(twin.parameters()))


def test_what_stands_in_two_places_does_so_in_the_copy() -> None:
    layer = nn.Linear(2, 2)
    whole = nn.Sequential(layer, layer, nn.Linear(2, 2))
    whole[2].weight = layer.weight
    twin = clone(whole)
    assert twin[0] is twin[1]
    assert twin[0] is not layer
    assert twin[2].weight is twin[0].weight


def test_of_a_part_of_a_larger_tensor_the_part_is_copied() -> None:
    layer = nn.Linear(3, 2)
    whole = torch.arange(60.0).view(10, 6)
    layer.weight.data = whole[4].view(2, 3)
    twin = clone(layer)
    assert twin.weight.tolist() == [[24, 25, 26], [27, 28, 29]]
    assert twin.weight.untyped_storage().nbytes() == 6 * 4
