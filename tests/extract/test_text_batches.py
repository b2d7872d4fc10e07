"""Batches of texts on a GPU: nothing waits for the device, and few shapes occur."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from extract.encoders.families import JOINT_TYPES, PADDING_SENSITIVE_TYPES
from extract.encoders.joint import JointTextTower
from extract.encoders.masks import build_mask
from extract.encoders.options import Options
from extract.encoders.padding import padded_length, padded_rows
from extract.encoders.protocol import Encoded, TextOutput, TextTower
from extract.encoders.text import TextEncoder, resolve_text
from tests.support.families import NARROW, TEXT_FAMILIES, bert, clip, save
from tests.support.text_models import FAMILIES, gpt2, joint_model, tower

CPU = torch.device("cpu")
META = torch.device("meta")
WAITING = ("flaubert", "longformer", "xlm", "xmod")
"""Families whose own code reads a value of the batch."""


def run_without_values(model: TextTower) -> TextOutput:
    """Runs a model where every tensor has a shape and no values: to read one raises an error."""
    model.to(META)
    with torch.inference_mode():
        return model(
            torch.empty(4, 16, dtype=torch.int64, device=META),
            torch.empty(4, 16, dtype=torch.bool, device=META),
            "last",
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_model_reads_a_value_of_its_batch(name: str, tmp_path: Path) -> None:
    """A GPU would have to end all work before it. The masks of transformers did, once a batch."""
    model = tower(name, tmp_path)
    if name in WAITING:
        with pytest.raises((RuntimeError, NotImplementedError), match=r"item\(\)|nonzero"):
            run_without_values(model)
    else:
        assert run_without_values(model).hidden.shape == (4, 16, 16)


@pytest.mark.parametrize("name", sorted(JOINT_TYPES))
def test_no_joint_model_reads_a_value_of_its_texts(name: str, tmp_path: Path) -> None:
    model = JointTextTower(joint_model(name, tmp_path), name)
    if model.full_length:
        model.to(META)
        ids = torch.empty(4, 24, dtype=torch.int64, device=META)
        with torch.inference_mode():
            assert model(ids, ids.bool(), "last").hidden.shape == (4, 24, 16)
    else:
        assert run_without_values(model).hidden.shape == (4, 16, 16)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_cpu_keeps_its_masks(attention: str, causal: bool) -> None:
    from transformers import masking_utils

    build = getattr(masking_utils, f"{attention}_mask")
    skip = {"allow_is_causal_skip": causal, "allow_is_bidirectional_skip": not causal}
    kind = "causal" if causal else "bidirectional"
    sizes = {"batch_size": 2, "q_length": 5, "kv_length": 5}
    sizes["mask_function"] = getattr(masking_utils, f"{kind}_mask_function")
    for lengths in ([5, 5], [3, 5]):
        mask = torch.arange(5) < torch.tensor(lengths)[:, None]
        arguments = {**sizes, **skip, "attention_mask": mask}
        own, expected = (
            function(device=CPU, **arguments)
            for function in (lambda **kwargs: build_mask(build, **kwargs), build)
        )
        assert (own is None) == (expected is None)
        assert own is None or own.equal(expected)
        arguments["attention_mask"] = mask.to(META)
        assert build_mask(build, device=META, **arguments).shape == (2, 1, 5, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_changes_the_features_of_some_families_only(name: str, tmp_path: Path) -> None:
    model = tower(name, tmp_path)
    ids = torch.randint(5, 30, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor([3, 5, 9, 9])[:, None]
    ids[~mask] = 1
    more = (0, 7, 0, 1)
    padded, padded_mask = (
        torch.nn.functional.pad(value, more, value=own) for value, own in ((ids, 1), (mask, 0))
    )
    padded_mask[4, 0] = True
    with torch.inference_mode():
        plain = model(ids, mask, "last").hidden[mask]
        found = model(padded, padded_mask, "last").hidden[padded_mask][: len(plain)]
    assert torch.allclose(found, plain, atol=1e-5, rtol=0) == (name not in PADDING_SENSITIVE_TYPES)


def test_shapes_are_rounded_up() -> None:
    assert [padded_length(n) for n in (1, 16, 17, 100)] == [16, 16, 32, 112]
    assert [padded_rows(n) for n in (*range(1, 12), 33, 250, 256)] == [
        *(1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 12, 40, 256, 256)
    ]  # fmt: skip
    for rows in range(1, 1000):
        assert rows <= padded_rows(rows) <= 1.25 * rows
    assert len({padded_rows(rows) for rows in range(1, 257)}) == 28


class Watched:
    """Notes the shapes that a tower is run on."""

    def __init__(self, model: TextTower) -> None:
        self.model, self.limit, self.full_length = model, model.limit, model.full_length
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        assert mask.shape == ids.shape
        self.shapes.append(tuple(ids.shape))
        return self.model(ids, mask, layer, inner)

    def to(self, device: torch.device) -> object:
        return self.model.to(device)


def close(found: Encoded, expected: Encoded) -> None:
    """One step of float16 at most where additions took another order."""
    assert found.lengths == expected.lengths
    for name in ("tokens", "pooled"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-3, rtol=1e-3
        )


def test_batches_of_all_lengths_have_few_shapes_and_the_same_features(tmp_path: Path) -> None:
    make = partial(bert, width={**NARROW, "num_hidden_layers": 2})
    spec = resolve_text(str(save(tmp_path, make)), "random", 60, 5, Options(pool_layers=(1,)))
    plain, encoder = TextEncoder(spec, CPU), TextEncoder(spec, CPU, few_shapes=True)
    encoder.tower, plain.tower = few, every = Watched(encoder.tower), Watched(plain.tower)
    words = torch.Generator().manual_seed(2)
    for rows in range(1, 40):
        longest = 1 + (rows * 17) % 60
        lengths = torch.randint(1, longest + 1, (rows,), generator=words).tolist()
        batch = [torch.randint(5, 8, (length,), generator=words) for length in lengths]
        found = encoder.encode(batch)
        close(found, plain.encode(batch))
        assert found.pooled.shape == (rows, 3, 96)
        assert found.pooled.isfinite().all()
    assert {length for _, length in few.shapes} == {16, 32, 48, 60}  # the limit is the last one
    assert len({length for _, length in every.shapes}) > 25
    assert len({rows for rows, _ in few.shapes}) == 17


@pytest.mark.parametrize("family", ["roberta", "deberta", "clip"])
def test_few_shapes_give_the_features_of_all_families(family: str, tmp_path: Path) -> None:
    joint = family == "clip"
    make = clip if joint else TEXT_FAMILIES[family][0]
    spec = resolve_text(str(save(tmp_path, make)), "random", 60, 5, joint=joint)
    encoder = TextEncoder(spec, CPU, few_shapes=True)
    inputs = encoder.prepare(["a good day", "good " * 9, "a"] * 3)
    found, expected = encoder.encode(inputs), TextEncoder(spec, CPU).encode(inputs)
    close(found, expected)
    assert (found.shared is not None) == (expected.shared is not None) == joint
    if found.shared is not None and expected.shared is not None:
        torch.testing.assert_close(found.shared, expected.shared, atol=1e-3, rtol=1e-3)


def test_few_shapes_keep_the_last_token_of_models_that_read_forward(tmp_path: Path) -> None:
    spec = resolve_text(str(gpt2(tmp_path)), "random", 30, 5, Options(tokens="none"))
    encoder = TextEncoder(spec, CPU, few_shapes=True)
    inputs = encoder.prepare(["good day", "", "x" * 100] * 3)
    found = encoder.encode(inputs)
    close(found, TextEncoder(spec, CPU).encode(inputs))
    assert (encoder.pools, found.lengths) == (("last", "mean"), [0] * 9)
