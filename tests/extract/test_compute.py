"""Precision, batches and memory: what the way of computing may not change."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from extract.encoders import image, text
from extract.encoders.compute import cast_weights, launching
from extract.encoders.image import resolve_image, resolve_joint_image
from extract.encoders.options import Options
from extract.encoders.text import resolve_text
from extract.plan import plan_batches
from extract.publisher import Publisher
from extract.streams import Timings, rows_a_batch
from mmsa_cache.compose.extraction.extraction import reading_limit
from mmsa_cache.errors import DeviceError, DiskError
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.writer import FeatureWriter
from tests.support.extraction import NO_MEMORY
from tests.support.families import TEXT_FAMILIES, TEXTS, chinese_clip, save
from tests.support.rows import claimed
from tests.support.shards import make_shard

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VALUES: dict[str, Any] = {"mean": None, "std": None, "size": 64, "fit": "crop", "seed": 1}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2]}
IMAGES = {
    "swinv2_tiny_window8_256": SWIN,
    "vit_tiny_patch16_224": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "resnet10t": {"channels": [8, 8, 8, 8]},
    "resnetv2_50": {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]},
}
"""The last one standardises the weights of its convolutions before it uses them."""


def calls(name: str, work: Any) -> int:
    """How often a call dispatches an operation."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    return sum(event.name == f"aten::{name}" for event in found.events())


def check_same(spec: Any, values: Sequence[Any]) -> None:
    """Weights cast once give what autocast gives, byte for byte, with fewer casts."""
    with (
        mock.patch.object(text, "cast_weights"),
        mock.patch.object(image, "cast_weights"),
    ):
        plain = spec.load(CPU)
    encoder = spec.load(CPU)
    inputs = encoder.prepare(values)
    found, expected = encoder.encode(inputs), plain.encode(inputs)
    assert found.tokens.equal(expected.tokens)
    assert found.pooled.equal(expected.pooled)
    if found.shared is not None:
        assert found.shared.equal(expected.shared)
    casts = [calls("_to_copy", partial(e.encode, inputs)) for e in (encoder, plain)]
    assert casts[0] < casts[1]
    # What fetches a number waits for a GPU. Texts: on the CPU transformers asks once for padding.
    waits = calls("_local_scalar_dense", partial(encoder.encode, inputs))
    assert waits <= (0 if isinstance(encoder, image.ImageEncoder) else 1)


@pytest.mark.parametrize("name", IMAGES)
def test_weights_cast_once_give_the_features_of_autocast(name: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 70, 80, 3), np.uint8)
    options = Options(compute="float16")
    check_same(
        resolve_image(name, "random", IMAGES[name], options=options, **VALUES), list(pictures)
    )


def test_weights_of_texts_cast_once(text_model: Path, tmp_path: Path) -> None:
    options = Options(compute="bfloat16")
    check_same(resolve_text(str(text_model), "random", 16, 5, options), TEXTS)
    folder = save(tmp_path, TEXT_FAMILIES["deberta"][0])
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    check_same(resolve_text(str(folder), "random", 64, 5, options), TEXTS)


def test_weights_of_joint_models_cast_once(tmp_path: Path) -> None:
    folder, options = str(save(tmp_path, chinese_clip)), Options(compute="float16")
    check_same(resolve_text(folder, "random", 64, 5, options, joint=True), TEXTS)
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 70, 80, 3), np.uint8))
    check_same(resolve_joint_image(folder, "random", 5, options), pictures)


def check_half(spec: Any, values: Sequence[Any]) -> None:
    """All in float16 gives nearly the features of float32, and casts next to nothing."""
    exact, half = spec.load(CPU), spec.computed_in("half").load(CPU)
    assert half.options.fields("text") == exact.options.fields("text") | {"compute": "half"}
    weights = half.tower.to(CPU).state_dict().values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float16}
    inputs = exact.prepare(values)
    found, expected = half.encode(inputs), exact.encode(inputs)
    for one, two in ((found.tokens, expected.tokens), (found.pooled, expected.pooled)):
        assert torch.allclose(one.float(), two.float(), atol=0.02, rtol=0.02)
    rough = spec.computed_in("float16").load(CPU)
    casts = [calls("_to_copy", partial(e.encode, inputs)) for e in (half, rough)]
    assert casts[0] <= casts[1]  # what is normalised in float32 is cast back and forth


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_all_in_half_precision(name: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 70, 80, 3), np.uint8)
    check_half(resolve_image(name, "random", IMAGES[name], **VALUES), list(pictures))


@pytest.mark.parametrize("family", ["bert", "deberta", "multilingual"])
def test_texts_all_in_half_precision(family: str, tmp_path: Path) -> None:
    folder = save(tmp_path, TEXT_FAMILIES[family][0])
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    check_half(resolve_text(str(folder), "random", 64, 5, Options(pool_layers=(1,))), TEXTS)


def test_joint_models_all_in_half_precision(tmp_path: Path) -> None:
    folder = str(save(tmp_path, chinese_clip))
    check_half(resolve_text(folder, "random", 64, 5, joint=True), TEXTS)
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 70, 80, 3), np.uint8))
    check_half(resolve_joint_image(folder, "random", 5), pictures)


def test_frequencies_of_rotary_positions_stay_exact() -> None:
    model = torch.nn.Sequential(torch.nn.LayerNorm(2), torch.nn.Linear(2, 2))
    model[1].register_buffer("inv_freq", torch.tensor([1.0, 1.23456e-4]))
    cast_weights(model, "half")
    kinds = {name: value.dtype for name, value in model.state_dict().items()}
    assert kinds.pop("1.inv_freq") == torch.float32
    assert set(kinds.values()) == {torch.float16}


def test_only_what_autocast_casts_is_cast() -> None:
    class Own(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(
        torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7), torch.nn.Linear(7, 3), Own(3, 3)
    )
    model.append(torch.nn.LayerNorm(3))
    model[1].weight = model[0].weight  # type: ignore[union-attr]  # tied
    cast_weights(model, "float32")
    cast_weights(object(), "float16")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    cast_weights(model, "float16")
    cast = {name for name, value in model.state_dict().items() if value.dtype == torch.float16}
    assert cast == {"2.weight", "2.bias"}


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["torch.nn.Module.to", "extract.encoders.{}.{}Encoder.encode"])
def test_no_memory_to_load_a_model_is_said(error: Exception, place: str, text_model: Path) -> None:
    specs = {
        "text": resolve_text(str(text_model), "random", 16, 5),
        "image": resolve_image(
            "vit_tiny_patch16_224", "random", IMAGES["vit_tiny_patch16_224"], **VALUES
        ),
    }
    for name, spec in specs.items():
        with (
            mock.patch(place.format(name, name.capitalize()), side_effect=error),
            pytest.raises(DeviceError, match="There is no memory to load") as caught,
        ):
            spec.load(CPU)
        assert caught.value.exit_code == 5


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:1")] == [
        CUDA, CUDA, torch.device("cuda:1")
    ]  # fmt: skip
    with pytest.raises(DeviceError, match=r"no cuda:7: this machine has 2 CUDA") as caught:
        pick_device("cuda:7")
    assert caught.value.exit_code == 5


def test_batches_of_texts_hold_so_many_positions() -> None:
    assert [rows_a_batch(*pair) for pair in ((None, CPU), (None, CUDA), (7, CUDA))] == [32, 256, 7]
    inputs: list[Tensor] = [torch.zeros(n) for n in (5, 1, 30, 3, 1, 4)]
    assert plan_batches(inputs, 4, 10) == [[1, 4, 3], [5, 0], [2]]
    assert plan_batches(inputs, 2, 1000) == plan_batches(inputs, 2) == [[1, 4], [3, 5], [0, 2]]
    assert plan_batches(inputs, 4, 40, step=16) == [[1, 4], [3, 5], [0], [2]]
    assert plan_batches([], 2, 10) == []


def test_where_reading_is_the_limit_it_is_said() -> None:
    said = reading_limit(Timings(read=900, starved=40), 100, 16)
    assert said.startswith(
        "Reading was the limit: of 100 s the models had nothing to do for 40 s, while 16 core(s) "
        "read and decoded (900 s of their time)."
    )
    assert not reading_limit(Timings(read=900, starved=20), 100, 16)
    assert not reading_limit(Timings(read=9, starved=9), 9, 16)


def test_windows_are_sealed_beside_the_caller(tmp_path: Path) -> None:
    shards = [make_shard(first, 3, 1) for first in (0, 3, 6)]
    timings = Timings()
    with claimed(tmp_path) as writer:
        with contextlib.closing(Publisher(writer, timings, beside=True)) as publisher:
            assert [publisher.add(shard) for shard in (*shards, None)] == [3, 3, 3, 0]
        assert all(writer.has(shard.keys).all() for shard in shards)
        assert timings.write > 0
        fails = mock.patch.object(FeatureWriter, "publish", side_effect=DiskError("it is full"))
        full = pytest.raises(DiskError, match="it is full")
        with fails, full, contextlib.closing(Publisher(writer, timings, beside=True)) as publisher:
            publisher.add(make_shard(9, 3, 1))


def test_an_interrupt_while_windows_are_sealed_loses_none(tmp_path: Path) -> None:
    shards = [make_shard(first, 3, 1) for first in (0, 3)]
    with claimed(tmp_path) as writer:
        with contextlib.closing(Publisher(writer, Timings(), beside=True)) as here:
            here.add(shards[0])
            here.publish()
            here.add(shards[1])
            interrupted = mock.patch.object(here._sealing, "result", side_effect=KeyboardInterrupt)
            with interrupted, pytest.raises(KeyboardInterrupt):
                here.publish()
        assert all(writer.has(shard.keys).all() for shard in shards)


def test_a_file_whose_hash_is_not_waited_for_goes(tmp_path: Path) -> None:
    with claimed(tmp_path) as writer:
        interrupted = mock.patch.object(
            ThreadPoolExecutor, "__exit__", side_effect=KeyboardInterrupt, autospec=True
        )
        with interrupted, pytest.raises(KeyboardInterrupt):
            writer.publish(make_shard(0, 3, 1))
        assert not list(writer.folder.glob(".tmp-*"))


def test_one_thread_launches_while_another_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    inside: list[int] = []

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking  # else the thread would wait in a loop

        def record(self, stream: object) -> None:
            inside.append(threading.get_ident())

        def synchronize(self) -> None:
            both.wait(20)  # the other one was let in before the results of this one were there

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    launched: list[int] = []

    def encode() -> None:
        with launching(CUDA):
            launched.append(1)
            time.sleep(0.02)
            assert len(launched) == 1
            launched.pop()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(encode) for _ in range(2)]:
            done.result(30)
    assert len(set(inside)) == 2
