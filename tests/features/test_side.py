"""Pools of several encoders beside each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuse.setting import Setting
from fuse.training.classifier import build, gather_batch, input_dims
from mmsa_cache.compose.bench.generated import numbered_keys
from mmsa_cache.errors import DamagedCacheError, DeviceError, SettingsError
from mmsa_cache.features.bank import BankChoice
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.positions import Positions
from mmsa_cache.names import encoders_of, pool_of, resolve_pools, vector_name
from mmsa_cache.store.schema import Shard

TABLE = np.array([[0, 3], [1, 4], [2, -1]])
"""Three samples; two have a copy."""


def features(seed: int, dim: int, order: list[int], table: np.ndarray) -> ModalityFeatures:
    """Rows of a seed; `order` says where each of the five rows lies."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((5, 1, dim)).astype(np.float16)[order]
    tokens = np.repeat(values[:, 0], 2, 0)
    offsets = np.arange(0, 2 * len(order) + 1, 2)
    shard = Shard(numbered_keys(len(order)), [""] * len(order), offsets, tokens, values, ("mean",))
    return ModalityFeatures([shard], f"features {seed}", table=table)


@pytest.fixture
def choice() -> BankChoice:
    turned = np.array([[4, 1], [3, 0], [2, -1]])
    made = {
        ("text", "default"): features(0, 4, [0, 1, 2, 3, 4], TABLE),
        ("text", "net.a"): features(1, 3, [4, 3, 2, 1, 0], turned),
        ("text", "originals"): features(2, 2, [0, 1, 2], TABLE[:, :1]),
        ("text", "short"): features(2, 2, [0, 1], np.array([[0], [1], [-1]])),
        ("image", "default"): features(3, 4, [0, 1, 2, 3, 4], TABLE),
    }
    return BankChoice(lambda *key: made[key], ["a", "b", "c"], [0, 1, 2])


def test_rows_of_other_encoders_are_those_of_the_same_inputs(choice: BankChoice) -> None:
    setting = Setting(text_pool="mean+net.a.mean+default.mean", beside=True)
    assert setting.encoders == ("default+net.a", "default")
    bank = choice.bank(*setting.encoders)
    items = bank.items([2, 0, 1], variants=True)
    assert items[:, 1].tolist() == [2, 0, 1, 3, 4]
    batch = gather_batch(bank, items, setting)
    own, other = (np.random.default_rng(s).standard_normal((5, 1, d)) for s, d in ((0, 4), (1, 3)))
    expected = [values.astype(np.float16)[items[:, 1], 0] for values in (own, other)]
    assert batch.vectors["text_mean"].numpy().tolist() == expected[0].tolist()
    assert batch.vectors["text_net:a:mean"].numpy().tolist() == expected[1].tolist()
    assert batch.text.shape == (5, 1, 4 + 3 + 4)
    dims = input_dims(bank, setting)
    assert (dims.text, dims.vectors["text_net:a:mean"]) == (11, 3)
    model = build(setting, bank, ["x", "y", "z"])
    assert "text_net:a:mean" in model.inputs
    sequences = gather_batch(bank, items, Setting(text_pool="net.a.mean", level="tokens"))
    assert sequences.text.shape == (5, 2, 4)
    assert choice.bank("net.a", "default").text.dim == 3


def test_copies_that_an_encoder_lacks_are_left_out(choice: BankChoice) -> None:
    bank = choice.bank("default+originals", "default")
    assert len(bank.items([0, 1, 2], variants=True)) == 3
    with pytest.raises(DamagedCacheError, match=r"features 2 lacks 1 samples, e\.g\. \['c'\]"):
        choice.bank("default+short", "default")
    with pytest.raises(SettingsError, match="not of the text encoder 'net'") as error:
        bank.dims(level="pooled", text_pool="net.mean", image_pool="mean")
    assert "They are of: default, originals." in str(error.value.hint)


def test_terms_of_pools() -> None:
    assert encoders_of("default", "mean@1+vader.all+a.b.cls+c.mean?") == "default+vader+a.b"
    stored = {"": ("mean",), "vader": ("all",)}
    known = "mean+vader.all?+x.all?+vader.cls?"
    assert resolve_pools(known, lambda name: stored.get(name, ())) == "mean+vader.all"
    assert resolve_pools("vader.all?", lambda name: ()) == ""
    assert pool_of(vector_name("text", "net.a.mean@1")) == "net.a.mean@1"
    lacks = Setting(text_pool="mean+vader.all?", image_pool="x.cls?+mean")
    assert lacks.resolved(lambda modality, name: ["cls"] * (modality == "image")) == Setting(
        image_pool="x.cls+mean"
    )
    with pytest.raises(SettingsError, match="the store has none of these"):
        Setting(text_pool="vader.all?").resolved(lambda modality, name: ())
    for wrong in ("", "mean+", "mean+mean", ".all", "a b.all", "vader."):
        with pytest.raises(SettingsError, match="cannot be trained"):
            Setting(text_pool=wrong)


def test_a_choice_moves_its_encoders_once(choice: BankChoice) -> None:
    one, two = choice.bank("default", "default"), choice.bank("default+net.a", "default")
    assert one.text is two.text
    assert two.to(torch.device("cpu")) is two


def test_a_device_without_memory_for_the_features_is_named(
    choice: BankChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    bank = choice.bank("default", "default")
    monkeypatch.setattr(ModalityFeatures, "to", refuse)
    with pytest.raises(DeviceError, match="no memory for the features of 3 samples on cpu"):
        bank.to(torch.device("cpu"))


def test_features_move_to_an_accelerator_as_one_tensor() -> None:
    """``meta`` stands for one: sizes and devices, no numbers."""
    shards = [features(seed, 4, [0, 1, 2, 3, 4], TABLE) for seed in (0, 1)]
    moved = shards[0]
    moved._positions._blocks += shards[1]._positions._blocks
    moved.to(torch.device("meta"))
    (whole,) = moved._positions._blocks
    assert (whole.device.type, tuple(whole.shape)) == ("meta", (20, 4))


def test_tokens_follow_to_an_accelerator_when_they_are_first_read() -> None:
    moved = features(0, 4, [0, 1, 2, 3, 4], TABLE)
    moved.to(torch.device("meta"), tokens=False)
    assert moved.vectors(torch.tensor([0]), "mean").device.type == "meta"
    assert moved._positions._blocks[0].device.type == "cpu"
    sequence, _ = moved.sequences(torch.tensor([0, 1]), 2)
    assert (sequence.device.type, tuple(sequence.shape)) == ("meta", (2, 2, 4))
    (whole,) = moved._positions._blocks
    assert (whole.device.type, tuple(whole.shape)) == ("meta", (10, 4))
    moved.to(torch.device("meta"))
    assert moved._positions._blocks[0] is whole


def test_a_device_without_memory_for_the_tokens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    short = features(0, 4, [0, 1, 2, 3, 4], TABLE)
    monkeypatch.setattr(Positions, "to", refuse)
    with pytest.raises(DeviceError, match="no memory for the tokens of 5 rows on cpu"):
        short.sequences(torch.tensor([0]))
