"""Folders of text models with anything in their files, as exports have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from extract.encoders.text import resolve_text
from extract.encoders.transformer import load_model
from tests.support.fuzzing import Random, json_bytes, series, tensors
from tests.support.tally import Tally

WEIGHTS = "model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, text_model: Path) -> Path:
    """A tiny BERT with weights."""
    target = tmp_path / "model"
    shutil.copytree(text_model, target)
    save_file(dict(load_model(target, 0).state_dict()), target / WEIGHTS)
    return target


@pytest.mark.faults
@pytest.mark.parametrize("examples", [5000])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
)
def test_files_of_text_models(folder: Path, name: str, examples: int, tally: Tally) -> None:
    path = folder / name
    whole = path.read_bytes()

    def make(chosen: Random) -> bytes:
        return tensors(chosen, whole) if name == WEIGHTS else json_bytes(chosen, json.loads(whole))

    def work(content: bytes) -> None:
        path.write_bytes(content)
        encoder = resolve_text(str(folder), "pretrained", 16, 0).load(CPU)
        found = encoder.encode(encoder.prepare(["good day", "", "é \0"]))
        assert len(found.lengths) == 3

    tally(f"fuzzed {name} of text models", examples, series(examples, make, work))
