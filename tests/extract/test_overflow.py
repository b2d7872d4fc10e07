"""Features that float16 cannot hold, of a tiny encoder whose weights are scaled up."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.encoders.options import Options
from extract.encoders.protocol import Encoded
from extract.encoders.text import TextEncoder, resolve_text
from extract.overflow import check_finite
from extract.plan import plan_rows
from extract.shards import encode_rows
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DeviceError
from mmsa_cache.store.schema import Shard

CPU = torch.device("cpu")
TEXTS = ("good day", "good bad day sea sun", "rain")
STORED = "float16 stores no value beyond 65504, whatever computes it: "


@pytest.fixture(scope="module")
def folder(text_model: Path) -> Path:
    from transformers import BertConfig

    config = BertConfig.from_pretrained(text_model)
    config.num_hidden_layers = 4
    config.save_pretrained(text_model)
    return text_model


def load(folder: Path, scaled: int, **options: Any) -> TextEncoder:
    """An encoder whose ``scaled``-th layer gives features of some millions."""
    encoder = resolve_text(str(folder), "random", 16, 5, Options(**options)).load(CPU)
    tower: Any = encoder.tower
    tower._model.encoder.layer[scaled - 1].output.LayerNorm.weight.mul_(1e7)
    return encoder


def encode(encoder: TextEncoder) -> Shard:
    samples = [
        Sample(f"p{i}", 0, text, Path(), sha256(text.encode()).hexdigest(), "")
        for i, text in enumerate(TEXTS)
    ]
    rows = plan_rows(samples, {}, "none", "text")
    return encode_rows(rows, lambda row: (row.sample.text, ""), encoder, CPU, 2)


@pytest.mark.parametrize(
    ("scaled", "options", "what", "cure"),
    [
        (4, {}, "position 0 (the last layer)", "choose another layer."),
        (2, {"layer": 2}, "position 0 (layer 2)", "choose another layer."),
        (4, {"tokens": "none"}, "pool cls (the last layer)", "choose another layer."),
        (2, {"pool_layers": (1, 2)}, "pool mean@2 (layer 2)", "leave 2 out of pool_layers."),
    ],
)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_row_and_place_are_named(
    folder: Path, scaled: int, options: dict[str, Any], what: str, cure: str, compute: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        encode(load(folder, scaled, compute=compute, **options))
    # The first batch holds the shortest texts.
    message = f"p2: {what} of {folder.name} (random weights) is not finite in float16."
    assert (caught.value.message, caught.value.hint) == (message, STORED + cure)


def test_layers_that_are_not_kept_may_be_large(folder: Path) -> None:
    found = encode(load(folder, 2))
    assert np.isfinite(found.tokens).all()
    assert np.isfinite(found.pooled).all()


def test_another_precision_is_offered_where_it_helps(folder: Path) -> None:
    others = {"float16": "'bfloat16' or 'float32'", "half": "'float16' or 'float32'"}
    for compute, cures in others.items():
        with pytest.raises(DeviceError, match="position 0") as caught:
            encode(load(folder, 4, compute=compute))
        hint = f"Set compute = {cures} in [extract]: {compute} overflows in the model."
        assert caught.value.hint == hint


def test_damaged_weights_are_told_from_large_ones(folder: Path) -> None:
    encoder = load(folder, 4)
    tower: Any = encoder.tower
    tower._model.encoder.layer[3].output.LayerNorm.weight.fill_(float("nan"))
    with pytest.raises(DeviceError, match="position 0") as caught:
        encode(encoder)
    assert caught.value.hint == "The model gives NaN in float32: check its weights."


def test_the_first_place_of_the_first_row_is_named(folder: Path) -> None:
    encoder = load(folder, 4)
    ones = (torch.ones(shape).half() for shape in ((5, 16), (2, 2, 16), (2, 4)))
    part = Encoded(next(ones), [2, 3], *ones)
    check_finite(part, ["a", "b"], encoder)
    assert part.shared is not None
    part.shared[0, 3] = torch.inf
    with pytest.raises(DeviceError, match=r"(?s)^a: pool shared of .* choose another model\."):
        check_finite(part, ["a", "b"], encoder)
    part.shared[0, 3] = 65504
    part.pooled[1, 1, 5] = -torch.inf
    with pytest.raises(DeviceError, match=r"^b: pool mean \(the last layer\)"):
        check_finite(part, ["a", "b"], encoder)
    part.tokens[4] = torch.nan
    with pytest.raises(DeviceError, match=r"^b: position 2 \(the last layer\)"):
        check_finite(part, ["a", "b"], encoder)
