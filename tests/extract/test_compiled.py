"""Compiled blocks: which ones, what is compiled for them, and what they may not change."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extract.encoders import compiled
from extract.encoders.compat import prepare_torchvision
from extract.encoders.compiled import CompiledBlocks, compile_blocks, repeated_blocks
from extract.encoders.image import ImageEncoder, resolve_image
from extract.encoders.lexicon import resolve_lexicon
from extract.encoders.options import Options
from extract.encoders.text import TextEncoder, resolve_text
from extract.streams import HalvingEncoder
from mmsa_cache.compose.extraction import loading
from mmsa_cache.config.loading import load_settings
from mmsa_cache.files.private import private_folder
from mmsa_cache.native.threads import one_thread, threads
from tests.support.families import TEXT_FAMILIES, save

CPU = torch.device("cpu")
VIT = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
STAGES = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": [2, 6], "num_heads": [1, 2]}


@pytest.fixture
def graphs() -> Iterator[list[Any]]:
    """The graphs that a compiler is given; each is then run as it is."""
    torch.compiler.reset()
    seen: list[Any] = []
    yield seen
    torch.compiler.reset()


def counting(graphs: list[Any]) -> Any:
    def backend(graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    return backend


def image_encoder(name: str, kwargs: Any, compute: str = "float32") -> ImageEncoder:
    options = Options(compute=compute)
    spec = resolve_image(
        name, "random", kwargs, mean=None, std=None, size=64, fit="crop", seed=1, options=options
    )
    return spec.load(CPU)


def pictures(count: int, seed: int = 0) -> list[Tensor]:
    values = np.random.default_rng(seed).integers(0, 256, (count, 3, 64, 64), np.uint8)
    return list(torch.from_numpy(values))


def kinds(model: nn.Module) -> list[str]:
    return [type(block).__name__ for block in repeated_blocks(model)]


def test_the_innermost_repeated_blocks_are_found() -> None:
    prepare_torchvision()
    import timm
    from transformers import BertConfig, BertModel

    swin = timm.create_model("swinv2_tiny_window8_256", **STAGES)
    assert kinds(swin) == 8 * ["SwinTransformerV2Block"]
    vit = timm.create_model("vit_tiny_patch16_224", **VIT)
    assert kinds(vit) == 2 * ["Block"]
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    assert kinds(BertModel(BertConfig(num_hidden_layers=3, **sizes))) == 3 * ["BertLayer"]
    # A stage of one block has blocks of a kind that others repeat.
    resnet = timm.create_model("resnet26t", layers=[1, 2, 2, 1], channels=[8, 8, 8, 8])
    assert kinds(resnet) == 6 * ["Bottleneck"]
    assert kinds(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())) == []


def test_pictures_blocks_that_are_alike_are_compiled_once(
    graphs: list[Any],
) -> None:
    encoder, batch = image_encoder("swinv2_tiny_window8_256", STAGES, "bfloat16"), pictures(4)
    plain = encoder.encode(batch)
    found = compile_blocks(encoder, 4, CPU, counting(graphs))
    assert found is not None
    assert found.count == 8
    with threads(2):
        expected = encoder.encode(batch)
    count = len(graphs)
    assert count == 4  # of two stages, shifted and not
    assert expected.tokens.equal(plain.tokens)  # this compiler runs the same operations
    assert expected.pooled.equal(plain.pooled)
    with ThreadPoolExecutor(1, initializer=one_thread) as pool:  # as streams do, one at a time
        assert pool.submit(encoder.encode, batch).result().tokens.equal(plain.tokens)
    rest = encoder.encode(batch[:3])
    assert rest.tokens.equal(plain.tokens[: len(rest.tokens)])
    assert len(graphs) == count  # nothing was compiled for the other thread, nor for the rest
    assert found.works


def test_texts_of_all_lengths_run_by_one_code(graphs: list[Any], tmp_path: Path) -> None:
    folder = str(save(tmp_path, TEXT_FAMILIES["bert"][0]))
    spec = resolve_text(folder, "random", 64, 5, Options(pool_layers=(1,)))
    encoder, plain = spec.load(CPU), spec.load(CPU)
    found = compile_blocks(encoder, 8, CPU, counting(graphs))
    assert found is not None
    assert found.count == len(repeated_blocks(plain.tower.to(CPU)))  # type: ignore[arg-type]
    batches = [
        encoder.prepare([" ".join(["a"] * (length + row)) for row in range(count)])
        for count, length in ((5, 9), (3, 17), (2, 30), (1, 4))
    ]
    counts = []
    for batch in batches:
        one, two = encoder.encode(batch), plain.encode(batch)
        assert torch.allclose(one.tokens.float(), two.tokens.float(), atol=2e-3)
        assert torch.allclose(one.pooled.float(), two.pooled.float(), atol=2e-3)
        assert encoder.pools == plain.pools
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts == 4 * counts[:1]
    assert found.works


@pytest.mark.parametrize("kind", ["text", "image"])
def test_what_aot_compiles_gives_the_features(kind: str, graphs: list[Any], tmp_path: Path) -> None:
    encoder: TextEncoder | ImageEncoder
    if kind == "text":
        folder = str(save(tmp_path, TEXT_FAMILIES["bert"][0]))
        encoder = resolve_text(folder, "random", 16, 5, Options(compute="bfloat16")).load(CPU)
        batch = encoder.prepare(["a b c", "b", "c a"])
    else:
        encoder = image_encoder("vit_tiny_patch16_224", VIT)
        batch = pictures(3)
    plain = encoder.encode(batch)
    found = compile_blocks(encoder, 3, CPU, "aot_eager")
    assert torch.allclose(encoder.encode(batch).tokens.float(), plain.tokens.float(), atol=1e-2)
    assert found is not None
    assert found.works


def test_what_cannot_be_compiled_runs_as_it_is_and_is_said_once(
    graphs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        raise RuntimeError("no C compiler: CUDA out of memory")  # as it may be put

    encoder, batch = image_encoder("vit_tiny_patch16_224", VIT), pictures(2)
    plain = encoder.encode(batch)
    found = compile_blocks(encoder, 2, CPU, fails)  # type: ignore[arg-type]
    assert found is not None
    for _ in range(2):
        assert encoder.encode(batch).tokens.equal(plain.tokens)
    assert not found.works
    said = capsys.readouterr().err
    assert said.count("not compiled, it runs as it is") == 1
    assert "no C compiler" in said


def test_a_batch_that_does_not_fit_is_compiled_at_half_the_rows() -> None:
    seen: list[int] = []

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, value: Tensor) -> Tensor:
            seen.append(len(value))
            if len(value) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return value + 1

    class Model:
        def encode(self, batch: Any) -> Tensor:
            return model(torch.stack(list(batch)))  # type: ignore[no-any-return]

    model = nn.Sequential(Block(), Block())
    blocks = CompiledBlocks.__new__(CompiledBlocks)
    blocks.rows, blocks.works, blocks._label = 5, True, "model"
    eager = model[0].forward
    compiled_rows: list[int] = []

    def compiled_forward(value: Tensor) -> Tensor:
        compiled_rows.append(len(value))
        return eager(value)  # type: ignore[no-any-return]

    model[0].forward = blocks._compiled_or_eager(eager, compiled_forward)
    encoder: Any = Model()
    parts = HalvingEncoder(encoder).run(list(torch.zeros(5, 2)))
    assert torch.cat(parts).equal(torch.full((5, 2), 2.0))  # type: ignore[arg-type]
    assert compiled_rows == [5, 3]
    assert blocks.rows == 3
    assert blocks.works


def test_encoders_without_blocks_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_blocks(resolve_lexicon().load(CPU), 8, CPU) is None
    encoder = image_encoder("vit_tiny_patch16_224", VIT | {"depth": 1})
    assert compile_blocks(encoder, 8, CPU) is None
    assert "repeats no blocks" in capsys.readouterr().err


def test_what_is_compiled_lies_where_no_other_user_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    default = f"{tempfile.gettempdir()}/torchinductor_user"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default)  # as torch does when it is imported
    before = os.umask(0o002)
    try:
        (tmp_path / "cache").mkdir(mode=0o755)
        folder = private_folder("compiled")
    finally:
        os.umask(before)
    assert folder == tmp_path / "cache/mmsa/compiled"
    assert {f.stat().st_mode & 0o777 for f in (folder, folder.parent)} == {0o700}
    assert compiled._use_private_folder()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    assert compiled._use_private_folder()
    for given in (tmp_path, tmp_path / "torchinductor_mine"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(given))
        assert compiled._use_private_folder()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(given)  # as somebody has set it
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    folder.parent.chmod(0o770)
    assert private_folder("compiled") is None
    encoder = image_encoder("vit_tiny_patch16_224", VIT)
    found = compile_blocks(encoder, 2, CPU)
    assert found is not None
    assert not found.works
    encoder.encode(pictures(2))
    assert "no folder for it that this user alone can write to" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert private_folder("compiled") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of others"))
    (tmp_path / "cache of others").mkdir()
    (tmp_path / "cache of others").chmod(0o777)
    assert private_folder("compiled") is None
    assert not list((tmp_path / "cache of others").iterdir())


def test_encoders_are_compiled_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Spec:
        label = "model"

        def load(self, device: torch.device) -> str:
            return f"encoder on {device}"

    asked: list[tuple[Any, ...]] = []

    def compile_blocks(*told: Any) -> SimpleNamespace:
        asked.append(told)
        return SimpleNamespace(count=7, works=len(asked) == 1)

    monkeypatch.setattr(loading, "compile_blocks", compile_blocks)
    gpu, spec = torch.device("cuda"), Spec()
    flags = [{}, {"extract.compile": True}, {"extract.compile": True, "cache.shard_rows": 64}]
    for told in flags:
        for device in (CPU, gpu):
            settings = load_settings(told)
            assert loading.load_encoder(spec, device, settings) == f"encoder on {device}"  # type: ignore
    assert asked == [("encoder on cuda", 256, gpu), ("encoder on cuda", 64, gpu)]
    assert capsys.readouterr().err.count("model: 7 blocks are compiled;") == 1
    assert "compile" not in load_settings(flags[1]).extract.model_dump()
