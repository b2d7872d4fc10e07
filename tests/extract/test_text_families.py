"""Every kind of text model that is taken: its longest sequence, and which way it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from extract.encoders.families import CAUSAL_TYPES, JOINT_TYPES, is_causal
from extract.encoders.joint import read_text_side
from extract.encoders.options import Options
from extract.encoders.text import resolve_text
from extract.encoders.text_tower import PlainTower
from tests.support.text_models import FAMILIES, POSITIONS, gpt2, joint_model, tower

CPU = torch.device("cpu")
OFFSET = (
    "camembert data2vec-text esm ibert longformer luke mpnet roberta roberta-prelayernorm "
    "xlm-roberta xlm-roberta-xl xmod"
)
"""Those that count positions from the padding's number + 1, here 2."""
ROTARY = (
    "bloom cohere cohere2 eurobert falcon gemma gemma2 gemma3_text glm glm4 gpt_neox granite "
    "helium jina_embeddings_v3 llama ministral mistral modernbert modernbert-decoder nemotron "
    "nomic_bert olmo olmo2 olmo3 phi phi3 qwen2 qwen3 smollm3 stablelm starcoder2 xglm xlnet"
)
"""Those without a table of positions: longer sequences run too."""


def states(model: PlainTower, *rows: list[int]) -> Any:
    ids = torch.tensor(rows)
    with torch.inference_mode():
        return model(ids, torch.ones_like(ids).bool(), "last")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_model_takes_its_longest_sequence(name: str, tmp_path: Path) -> None:
    """One past what it takes is an assert on the device of a GPU, for all that follows."""
    model = tower(name, tmp_path)
    limit = model.limit
    if name in ("bloom", "xlnet"):
        assert limit is None
    else:
        assert limit == POSITIONS - (2 if name in OFFSET.split() else 0)
    longest = limit or POSITIONS
    assert states(model, [5] * longest).hidden.isfinite().all()
    if name not in ROTARY.split():
        with pytest.raises((RuntimeError, IndexError)):
            states(model, [5] * (longest + 1))


@pytest.mark.parametrize("name", sorted(JOINT_TYPES))
def test_a_joint_model_takes_its_longest_text(name: str, tmp_path: Path) -> None:
    model = joint_model(name, tmp_path)
    limit = read_text_side(tmp_path).limit
    assert limit == POSITIONS - (2 if name == "altclip" else 0)
    with torch.inference_mode():
        model.get_text_features(input_ids=torch.full((1, limit), 5))
        with pytest.raises((RuntimeError, IndexError, ValueError)):
            model.get_text_features(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize("name", FAMILIES)
def test_models_that_read_forward_pool_the_last_token(name: str, tmp_path: Path) -> None:
    model = tower(name, tmp_path)
    found = states(model, [5, 6, 7, 8], [5, 9, 10, 11])
    same = torch.allclose(found.hidden[0, 0], found.hidden[1, 0], atol=1e-6)
    if name != "mra":  # sees blocks of 32
        assert same == (name in CAUSAL_TYPES)
    pooled = found.vectors["last" if name in CAUSAL_TYPES else "cls"]
    assert len(found.vectors) == 1
    torch.testing.assert_close(pooled, found.hidden[:, -1 if name in CAUSAL_TYPES else 0])


def test_configurations_say_which_way_a_model_reads() -> None:
    assert is_causal({"model_type": "gemma3_text"})
    assert not is_causal({"model_type": "gemma3_text", "use_bidirectional_attention": True})
    assert is_causal({"model_type": "bert", "is_decoder": True})
    assert not is_causal({"model_type": "bert", "is_decoder": False})


TEXTS = ["", "a", "good day", "\t \n", "a\0b\x07\ufffe", "x" * 100]


def test_texts_without_a_token_have_features(tmp_path: Path) -> None:
    """Before, the mean of no token: not a number."""
    spec = resolve_text(str(gpt2(tmp_path)), "random", 32, 5)
    assert spec.fields["pool"] == "last"
    encoder = spec.load(CPU)
    assert encoder.pools == ("last", "mean")
    inputs = encoder.prepare(TEXTS)
    assert inputs[0].tolist() == [0]  # <|endoftext|>
    together = encoder.encode(inputs)
    assert together.pooled.isfinite().all()
    assert together.lengths[:3] == [1, 1, 8]
    starts = torch.tensor(together.lengths).cumsum(0)
    for row, own in enumerate(inputs):  # padding changes nothing
        alone = encoder.encode([own])
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], atol=4e-3, rtol=4e-3)
        last = together.tokens[starts[row] - 1]
        torch.testing.assert_close(together.pooled[row, 0], last)
    without = resolve_text(str(tmp_path), "random", 32, 5, Options(tokens="none")).load(CPU)
    torch.testing.assert_close(without.encode(inputs).pooled, together.pooled)


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tmp_path: Path) -> None:
    right = resolve_text(str(gpt2(tmp_path / "r")), "random", 32, 5).load(CPU)
    folder = gpt2(tmp_path / "l", padding_side="left", pad_token="<|endoftext|>")
    left = resolve_text(str(folder), "random", 32, 5).load(CPU)
    assert left.tokenizer.padding_side == "left"
    for one, other in zip(right.prepare(TEXTS), left.prepare(TEXTS), strict=True):
        assert one.tolist() == other.tolist()
    found, expected = (encoder.encode(encoder.prepare(TEXTS)) for encoder in (left, right))
    torch.testing.assert_close(found.pooled, expected.pooled)
