"""Noise of a call: what it does to a model, stacked training, no waiting for the device."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from fuse.losses.loss import Loss
from fuse.losses.losses import LOSSES, build_loss
from fuse.models.builder import build_model
from fuse.models.fusions import FUSIONS
from fuse.models.model import MultimodalClassifier
from fuse.models.noise import Dropout, ModalityDropout, NoiseStream, Tape, count_noise, noise_from
from tests.support.waiting import NoWaiting

LEVELS = ("pooled", "tokens")
MEMBERS, ROWS = 3, 6
EVERY = torch.arange(-32768, 32768).to(torch.int16)
"""Each value of the noise once: what holds for these holds exactly on average."""


def draw(count: int, seed: int, *shape: int) -> Tensor:
    own = torch.Generator().manual_seed(seed)
    return torch.randint(-32768, 32768, (*shape, count), dtype=torch.int16, generator=own)


def test_the_tape_gives_its_values_in_order() -> None:
    tape = Tape(EVERY[:10])
    assert tape.take((2, 3)).tolist() == EVERY[:6].view(2, 3).tolist()
    assert tape.take((4,)).tolist() == EVERY[6:10].tolist()
    assert tape.position == 10


def test_noise_that_is_drawn_as_it_is_asked_for() -> None:
    tape = Tape(lambda count: EVERY[:count])
    assert tape.take((2, 3)).tolist() == EVERY[:6].view(2, 3).tolist()
    assert tape.take((4,)).tolist() == EVERY[:4].tolist()
    assert tape.position == 10


def test_noise_is_of_the_innermost_context_and_of_its_thread() -> None:
    dropout, x = Dropout(0.5), torch.ones(4)
    low, high = (torch.full((8,), value, dtype=torch.int16) for value in (-32768, 32767))
    with noise_from(low) as outer:
        with noise_from(high) as inner:
            assert dropout(x).tolist() == [2.0] * 4
            with ThreadPoolExecutor(1) as pool:
                pool.submit(dropout, x).result()
        assert dropout(x).tolist() == [0.0] * 4
        assert (outer.position, inner.position) == (4, 4)
        with pytest.raises(KeyError), noise_from(high):
            raise KeyError
        assert dropout(x).tolist() == [0.0] * 4


@pytest.mark.parametrize("words", [True, False], ids=["on a CPU", "as on a GPU"])
def test_a_stream_gives_the_same_numbers_however_many_at_a_time(words: bool) -> None:
    def made(seed: int) -> NoiseStream:
        stream = NoiseStream(seed, torch.device("cpu"))
        if not words:
            stream._words = None  # torch's numbers, which other devices have
        return stream

    total = 600_000  # more than two blocks
    whole = made(7)(total)
    assert whole.dtype == torch.int16
    stream, sizes = made(7), [1, 0, 33, 262_111, 300_000, 37_855]
    assert torch.equal(torch.cat([stream(size) for size in sizes]), whole)
    assert not torch.equal(made(8)(total), whole)
    counts = torch.bincount(whole.long() + 32768, minlength=65536).double()
    chi_square = float(((counts - total / 65536).square() / (total / 65536)).sum())
    assert abs(chi_square - 65535) < 6 * (2 * 65535) ** 0.5  # six standard deviations


def test_a_tape_that_runs_out_says_so() -> None:
    tape = Tape(EVERY[:10])
    tape.take((6,))
    with pytest.raises(
        RuntimeError, match=r"6 values asked for at position 6 of 10: .*count_noise"
    ):
        tape.take((2, 3))


@pytest.mark.parametrize("values", [EVERY.int(), EVERY.view(2, -1), EVERY.float()])
def test_noise_of_the_wrong_kind(values: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected int16 \(n,\), received torch"):
        Tape(values)


@pytest.mark.parametrize("p", [1e-9, 1e-4, 0.1, 0.25, 1 / 3, 0.5, 0.999999, 1 - 1e-9])
def test_dropout_keeps_the_right_share_and_the_mean(p: float) -> None:
    dropout = Dropout(p)
    x = torch.linspace(1.0, 2.0, 65536, dtype=torch.float64)
    with noise_from(EVERY):
        y = dropout(x).numpy()
    dropped = min(round(p * 65536), 65535)
    assert abs(dropped / 65536 - p) <= 1 / 65536
    kept = np.arange(65536) >= dropped  # the lowest noise is dropped first
    np.testing.assert_array_equal(y == 0.0, ~kept)
    np.testing.assert_allclose(y[kept], x.numpy()[kept] * 65536 / (65536 - dropped), rtol=1e-15)
    with noise_from(EVERY):
        ones = dropout(torch.ones(65536, dtype=torch.float64))
    assert float(ones.mean()) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_the_identity_in_eval_and_at_zero(training: bool) -> None:
    dropout = Dropout(0.0 if training else 0.5).train(training)
    x = torch.randn(4)
    with noise_from(EVERY) as tape:
        assert dropout(x) is x
    assert tape.position == 0
    assert not dropout.active


def test_dropout_with_one_mask_for_several_places() -> None:
    x = torch.ones(3, 5, 4, dtype=torch.float64)
    with noise_from(draw(12, 0)) as tape:
        drawn = Dropout(0.5)(x, (3, 1, 4))
    assert tape.position == 12
    for y in (drawn, Dropout(0.5)(x, (3, 1, 4))):
        assert torch.equal(y, y[:, :1].expand_as(y))
        assert set(y.unique().tolist()) == {0.0, 2.0}


def test_dropout_outside_of_a_context_is_that_of_pytorch() -> None:
    x = torch.randn(50, 3)
    torch.manual_seed(1)
    expected = F.dropout(x, 0.3)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.3)(x), expected)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_probabilities_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=f"dropout: expected a probability .* received {p}"):
        Dropout(p)
    with pytest.raises(ValueError, match="modality dropout: expected a probability"):
        ModalityDropout(p + (p == 1.0))


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_modality_dropout_takes_both_modalities_equally_often(p: float) -> None:
    masks = torch.ones(65536, 2, dtype=torch.bool), torch.ones(65536, 3, dtype=torch.bool)
    with noise_from(EVERY):
        has_text, has_image = (mask.any(1) for mask in ModalityDropout(p)(*masks))
    each = round(p * 32768)
    assert int((~has_text).sum()) == int((~has_image).sum()) == each
    assert bool((has_text | has_image).all())
    torch.manual_seed(0)
    by_hand = ModalityDropout(p)(*masks)
    for mask in by_hand:
        assert float((~mask.any(1)).double().mean()) == pytest.approx(p / 2, abs=0.01)
    same = ModalityDropout(p).eval()(*masks)
    assert same[0] is masks[0]
    assert same[1] is masks[1]


def test_modality_dropout_leaves_the_only_modality_and_the_padding() -> None:
    text_mask = torch.tensor([[True, False], [False, False], [True, True], [False, False]])
    image_mask = torch.tensor([[True], [True], [False], [False]])
    for noise in (-32768, 32767):
        with noise_from(torch.full((4,), noise, dtype=torch.int16)):
            found = ModalityDropout(1.0)(text_mask, image_mask)
        lost = 0 if noise < 0 else 1
        assert torch.equal(found[1 - lost], (text_mask, image_mask)[1 - lost])
        expected = (text_mask, image_mask)[lost].clone()
        expected[0] = False
        assert torch.equal(found[lost], expected)


def make(fusion: str, seed: int = 0, **changes: Any) -> MultimodalClassifier:
    """A small model in float64 and training mode that uses every kind of noise."""
    torch.manual_seed(seed)
    flags: dict[str, Any] = {
        "text_in": 6,
        "image_in": 5,
        "beside": {"text_vector": 4, "image_vector": 3},
        "text_dim": 8,
        "dropout": 0.3,
        "input_dropout": 0.1,
        "modality_dropout": 0.4,
        "heads": 2,
        "layers": 2,
        "ffn": 12,
        "rank": 3,
        "directions": "both",
        "modality_embeddings": True,
        "pooling": "attention",
        "image_pooling": "first",
        "head_dims": (7, 5),
    }
    model = build_model(fusion=fusion, **{**flags, **changes}).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def inputs(level: str, seed: int, *members: int) -> tuple[Any, ...]:
    """Arguments of `forward` with float16 features, for several members one after the other."""
    torch.manual_seed(seed)
    tokens, patches = (1, 1) if level == "pooled" else (5, 7)
    shape = (*members, ROWS)
    vectors = {"text_vector": torch.randn(*shape, 4), "image_vector": torch.randn(*shape, 3)}
    return (
        torch.randn(*shape, tokens, 6).half(),
        torch.rand(*shape, tokens) < 0.8,
        torch.randn(*shape, patches, 5).half(),
        torch.rand(*shape, patches) < 0.8,
        vectors,
    )


def member(batch: tuple[Any, ...], k: int) -> tuple[Any, ...]:
    *tensors, vectors = batch
    return (*(x[k] for x in tensors), {name: vector[k] for name, vector in vectors.items()})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_noise_needed_is_what_a_step_takes_and_changes_nothing(fusion: str, level: str) -> None:
    model = make(fusion).eval()
    batch = inputs(level, 1)
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    count = count_noise(model, *batch)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with noise_from(EVERY) as tape:
        model.train()(*batch)
    assert tape.position == count > 0
    assert count_noise(make(fusion, dropout=0, input_dropout=0, modality_dropout=0), *batch) == 0


def test_one_mask_a_row_takes_the_noise_of_one_position() -> None:
    batch = inputs("tokens", 1)
    off = {"dropout": 0.0, "modality_dropout": 0.0}
    assert count_noise(make("concat", **off), *batch) == ROWS * (5 * 6 + 7 * 5 + 4 + 3)
    shared = make("concat", **off, shared_input_dropout=True)
    assert count_noise(shared, *batch) == ROWS * (6 + 5 + 4 + 3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("lost", ["text", "image"])
def test_modality_dropout_is_as_if_the_modality_were_missing(
    fusion: str, level: str, lost: str
) -> None:
    model = make(fusion, dropout=0.0, input_dropout=0.0, modality_dropout=1.0)
    text, text_mask, image, image_mask, vectors = inputs(level, 1)
    text_mask[:, 0] = image_mask[:, 0] = True
    noise = torch.full((ROWS,), -32768 if lost == "text" else 32767, dtype=torch.int16)

    def logits_of(*arguments: Any) -> Tensor:
        with noise_from(noise):
            logits: Tensor = model(*arguments)[0]
        return logits

    received = logits_of(text, text_mask, image, image_mask, vectors)
    if lost == "text":
        text_mask = torch.zeros_like(text_mask)
    else:
        image_mask = torch.zeros_like(image_mask)
    expected = logits_of(text, text_mask, image, image_mask, vectors)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)
    changed = {name: v + 1.0 if name.startswith(lost) else v for name, v in vectors.items()}
    again = logits_of(text, text_mask, image, image_mask, changed)
    assert torch.equal(again, expected)


def test_one_modality_has_none_to_lose() -> None:
    model = make("concat", modality="text", dropout=0.0, input_dropout=0.0)
    assert count_noise(model, *inputs("tokens", 1)) == 0


def test_the_same_noise_gives_the_same_step_of_a_model_and_its_copy() -> None:
    model, batch = make("encoder"), inputs("tokens", 1)
    twin = copy.deepcopy(model)
    count = count_noise(model, *batch)
    logits = []
    for each, seed in ((model, 1), (twin, 1), (model, 2)):
        with noise_from(draw(count, seed)) as tape:
            logits.append(each(*batch)[0])
        assert tape.position == count
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    with pytest.raises(RuntimeError, match="count_noise"), noise_from(draw(count - 1, 1)):
        model(*batch)


def assert_member(stacked: dict[str, Tensor], k: int, alone: dict[str, Tensor]) -> None:
    assert stacked.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(
            stacked[name][k], value, rtol=1e-10, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dropout", [0.3, 0.0])
def test_stacked_models_equal_the_models_alone(fusion: str, level: str, dropout: float) -> None:
    """Outputs, gradients, running statistics and the statistics of ACB, over two batches."""
    alone = [make(fusion, seed, dropout=dropout) for seed in range(MEMBERS)]
    losses = [build_loss("acb") for _ in alone]
    parameters, buffers = stack_module_state(alone)
    statistics = stack_module_state(losses)[1]
    base, base_loss = copy.deepcopy(alone[0]).to("meta"), copy.deepcopy(losses[0])

    def step(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        statistics: dict[str, Tensor],
        noise: Tensor,
        batch: tuple[Any, ...],
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        with noise_from(noise):
            logits, _ = functional_call(base, (parameters, buffers), batch)
        return logits, functional_call(base_loss, statistics, (logits, labels))

    for seed in (1, 2):
        batch = inputs(level, seed, MEMBERS)
        labels = torch.randint(0, 3, (MEMBERS, ROWS))
        noise = draw(count_noise(alone[0], *member(batch, 0)), seed, MEMBERS)
        logits, values = vmap(step)(parameters, buffers, statistics, noise, batch, labels)
        values.sum().backward()
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        for k, (model, loss) in enumerate(zip(alone, losses, strict=True)):
            with noise_from(noise[k]):
                own_logits, _ = model(*member(batch, k))
            own_value = loss(own_logits, labels[k])
            own_value.backward()
            assert_member({"logits": logits}, k, {"logits": own_logits})
            assert_member({"loss": values}, k, {"loss": own_value})
            assert_member(gradients, k, {name: p.grad for name, p in model.named_parameters()})
            assert_member(buffers, k, dict(model.named_buffers()))
            assert_member(statistics, k, dict(loss.named_buffers()))

    base.eval()
    base_loss.eval()
    with torch.no_grad():
        logits, _ = vmap(step)(parameters, buffers, statistics, noise, batch, labels)
        for k, model in enumerate(alone):
            own_logits, _ = model.eval()(*member(batch, k))
            assert_member({"logits": logits}, k, {"logits": own_logits})


def all_losses() -> list[Loss]:
    return [
        build_loss(
            name, class_weights=[1.0, 2.0, 3.0], class_priors=[1.0, 2.0, 3.0], label_smoothing=0.1
        )
        for name in LOSSES
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_stacked_losses_equal_the_losses_alone(name: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(MEMBERS, ROWS, 3, dtype=torch.float64)
    labels = torch.randint(0, 3, (MEMBERS, ROWS))
    figures = [[1.0, 2.0, 3.0], [3.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    alone = [
        build_loss(name, class_weights=each, class_priors=each, label_smoothing=0.1)
        for each in figures
    ]
    buffers = stack_module_state(alone)[1]
    base = copy.deepcopy(alone[0])
    mapped = vmap(
        lambda b, z, y: functional_call(base, b, (z, y)), in_dims=(0 if buffers else None, 0, 0)
    )
    values = mapped(buffers, logits, labels)
    for k, loss in enumerate(alone):
        assert float(values[k]) == pytest.approx(float(loss(logits[k], labels[k])), rel=1e-12)


def test_the_watch_for_waiting_sees_it() -> None:
    for waits in (lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: F.one_hot(x.long(), 3)):
        with pytest.raises(AssertionError, match="waits"), NoWaiting():
            waits(torch.ones(3))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_step_never_waits_for_the_device(fusion: str, level: str) -> None:
    batch, labels = inputs(level, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    model = make(fusion, norm="standardise")
    noise = draw(count_noise(model, *batch), 1)
    losses = all_losses()
    for context in (noise_from(noise), nullcontext()):
        with context, NoWaiting():
            logits, _ = model(*batch, need_weights=True)
            torch.stack([loss(logits, labels) for loss in losses]).sum().backward()
    with NoWaiting(), torch.inference_mode():
        model.eval()(*batch)
