"""Attention and encoder layers against PyTorch's modules, and their dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fuse.models.attention import EncoderLayer, EncoderStack, MultiHeadAttention
from fuse.models.noise import noise_from

DIM, HEADS, FFN, LAYERS = 8, 2, 12, 3


def sequences() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and the mask of the keys."""
    torch.manual_seed(0)
    mask = torch.rand(4, 7) < 0.6
    mask[:, 0] = True
    return torch.randn(4, 5, DIM).double(), torch.randn(4, 7, DIM).double(), mask


def assert_same_start(mine: nn.Module, theirs: nn.Module) -> None:
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name


def shake(module: nn.Module) -> None:
    """Moves every parameter, biases too, away from where it starts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_that_of_pytorch(need_weights: bool) -> None:
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    after = torch.rand(1)
    torch.manual_seed(1)
    mine = MultiHeadAttention(DIM, HEADS, 0.0)
    assert torch.equal(torch.rand(1), after)
    assert_same_start(mine, theirs)
    shake(theirs.double())
    mine.double().load_state_dict(theirs.state_dict())
    query, key, mask = sequences()
    expected, expected_weights = theirs(query, key, key, key_padding_mask=~mask)
    received, weights = mine(query, key, mask, need_weights)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)
    if need_weights:
        torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-12)
    else:
        assert weights is None


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_encoder_is_that_of_pytorch() -> None:
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(DIM, HEADS, FFN, 0.0, batch_first=True)
    theirs = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    after = torch.rand(1)
    torch.manual_seed(1)
    mine = EncoderStack(LAYERS, DIM, HEADS, FFN, 0.0)
    assert torch.equal(torch.rand(1), after)
    assert_same_start(mine, theirs)
    shake(theirs.double())
    mine.double().load_state_dict(theirs.state_dict())
    _, x, mask = sequences()
    expected = theirs(x, src_key_padding_mask=~mask)
    received, _ = mine(x, mask)
    torch.testing.assert_close(received[mask], expected[mask], rtol=0, atol=1e-11)


def test_the_weights_of_an_encoder_are_those_of_its_layers() -> None:
    stack, x = EncoderStack(2, 8, 2, 16, 0.0).eval(), torch.randn(3, 5, 8)
    torch.nn.init.normal_(stack.layers[1].self_attn.in_proj_weight)
    once, first = stack.layers[0](x, None, True)
    twice, second = stack.layers[1](once, None, True)
    encoded, weights = stack(x, None, True)
    assert torch.equal(encoded, twice)
    assert torch.equal(weights, torch.stack([first, second], dim=1))
    for module in (stack, stack.layers[0]):
        assert module(x, None)[1] is None, "not asked for"
    assert stack.layers[0].self_attn(x, x, None)[1] is None


def test_a_row_without_a_key_finds_nothing() -> None:
    attention = MultiHeadAttention(DIM, HEADS, 0.0).double()
    shake(attention)
    query, key, mask = sequences()
    mask[2] = False
    for need_weights in (False, True):
        found, weights = attention(query, key, mask, need_weights)
        assert float(found[2].abs().detach().max()) == 0.0
        assert bool((found[[0, 1, 3]] != 0).all())
        if weights is not None:
            assert float(weights[2].abs().detach().max()) == 0.0


def test_dropout_acts_on_the_weights_of_each_head() -> None:
    attention = MultiHeadAttention(DIM, HEADS, 0.25).double()
    shake(attention)
    query, key, mask = sequences()
    by_head = []
    for head in range(HEADS):
        # The weights of one head: with the rest dropped, the average over the heads is its share.
        noise = torch.full((4, HEADS, 5, 7), -32768, dtype=torch.int16)
        noise[:, head] = 32767
        with noise_from(noise.flatten()):
            by_head.append(attention(query, key, mask, True)[1].detach() * HEADS * 0.75)
    torch.testing.assert_close(by_head[0].sum(dim=2), torch.ones(4, 5).double())
    noise = torch.randint(-32768, 32768, (4, HEADS, 5, 7), dtype=torch.int16)
    with noise_from(noise.flatten()):
        received, weights = attention(query, key, mask, True)
    kept = (noise.numpy() >= -32768 + 16384) / 0.75
    every = torch.stack(by_head, dim=1).numpy() * kept
    np.testing.assert_allclose(weights.detach(), every.mean(axis=1), rtol=0, atol=1e-12)
    value = key.numpy() @ attention.in_proj_weight.detach().numpy()[-DIM:].T
    value = value + attention.in_proj_bias.detach().numpy()[-DIM:]
    heads = np.split(value, HEADS, axis=2)
    found = np.concatenate([every[:, h] @ heads[h] for h in range(HEADS)], axis=2)
    out = attention.out_proj
    expected = found @ out.weight.detach().numpy().T + out.bias.detach().numpy()
    np.testing.assert_allclose(received.detach(), expected, rtol=0, atol=1e-12)


def test_dropout_of_an_encoder_layer_acts_on_both_branches_and_the_hidden_units() -> None:
    layer = EncoderLayer(DIM, HEADS, FFN, 0.25).double()
    shake(layer)
    _, x, mask = sequences()
    sizes = {"weights": (4, HEADS, 7, 7), "attended": x.shape, "hidden": (4, 7, FFN)}
    sizes |= {"forward": x.shape}
    noise = {
        name: torch.randint(-32768, 32768, size, dtype=torch.int16) for name, size in sizes.items()
    }
    with noise_from(torch.cat([values.flatten() for values in noise.values()])):
        received, _ = layer(x, mask)

    def dropped(name: str, values: Tensor) -> Tensor:
        return values * (noise[name] >= -32768 + 16384) / 0.75

    with noise_from(noise["weights"].flatten()):
        attended, _ = layer.self_attn(x, x, mask)
    x = layer.norm1(x + dropped("attended", attended))
    hidden = dropped("hidden", layer.linear1(x).relu())
    expected = layer.norm2(x + dropped("forward", layer.linear2(hidden)))
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)
