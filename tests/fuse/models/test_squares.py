"""Distances that are kept are the plain ones, bounded, and computed once."""

from __future__ import annotations

import pytest
import torch

from fuse.models import squares as module
from fuse.models.kernel import KernelClassifier
from fuse.models.squares import DistanceCache, cache_distances

DIMS = {"text_mean": 5, "text_lexicon:all": 3, "image_mean": 4}


def kernel(rows: dict[str, torch.Tensor], **values: float) -> torch.Tensor:
    """Whitened features of rows 3 to 9, landmarks are rows 0 to 5; the last has no image."""
    model = KernelClassifier(DIMS, 3, 6, 0.0, **values)
    figures = {name: (of.float().mean(0), of.float().std(0)) for name, of in rows.items()}
    model.fit_standardisation(figures)
    model.fit_landmarks({name: of[:6] for name, of in rows.items()})
    image = torch.ones(7, 1, dtype=torch.bool)
    image[-1] = False
    given = {name: of[3:] for name, of in rows.items()}
    return model.eval()(image_mask=image, vectors=given)[1]["fused"]


@pytest.fixture
def rows() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(10, dim).half() for name, dim in DIMS.items()}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the rows whose distances are computed."""
    found: list[torch.Size] = []
    monkeypatch.setattr(
        module, "linear", lambda x, y: found.append(x.shape) or torch.nn.functional.linear(x, y)
    )
    return found


def test_kept_distances_are_the_plain_ones_whatever_the_weights(
    rows: dict[str, torch.Tensor], computed: list[torch.Size]
) -> None:
    settings = ({}, {"other_weight": 3.0}, {"bandwidth": 2.0, "image_weight": 2.0})
    plain = [kernel(rows, **values) for values in settings]
    assert len(computed) == len(settings) * 2 * len(DIMS)
    computed.clear()
    with cache_distances():
        kept = [kernel(rows, **values) for values in settings]
        assert len(computed) == 2 * len(DIMS)  # by the first of them alone
        for one, other in zip(plain, kept, strict=True):
            assert torch.equal(one, other)
        # A number of one row's vector changes, and with it its mean and deviation.
        changed = rows | {"text_mean": rows["text_mean"].clone().index_fill_(0, torch.tensor(7), 1)}
        computed.clear()
        again = kernel(changed)
        assert len(computed) == 2
    assert torch.equal(again, kernel(changed))
    assert not torch.equal(again, plain[0])


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MATRICES", 2)
    names, made = torch.arange(4), []

    def get(name: int) -> None:
        value = kept.get(
            [names[name : name + 1]],
            8 * 4,
            lambda: made.append(name) or torch.full((8,), 1.0 * name),
        )
        assert value.tolist() == [name] * 8

    kept = DistanceCache(2 * 8 * 4)
    for name in (0, 1, 0, 2, 0, 1):
        get(name)
    assert made == [0, 1, 2, 1]
    kept.get([names], 9 * 4, lambda: torch.zeros(9))  # two of them are too large
    assert not kept._cache, "the others take memory beside it"
    get(0)
    get(0)
    assert made == [0, 1, 2, 1, 0]
