"""Inputs of joint models against the library's own processors; weights that are pickled only."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extract.encoders.compat import prepare_torchvision
from extract.encoders.folder import find_weight_files
from extract.encoders.image import resolve_joint_image
from extract.encoders.options import Options
from extract.encoders.preprocessing import read_input_settings
from extract.encoders.text import resolve_text
from extract.inputs.decode import RESIZE, fit_square, needed_side
from mmsa_cache.errors import ModelError
from tests.support.clip import clip_tokenizer

NARROW = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
NARROW |= {"num_hidden_layers": 2}
SIDE = 32


def photo(width: int, height: int) -> Image.Image:
    """Smooth shapes under fine noise, as a photograph has them."""
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype("u1"))


PHOTOS = [photo(300, 200), photo(160, 320), photo(64, 64), photo(20, 30)]
"""Resized, their long sides are whole numbers, and even as the margins are: elsewhere the library
may cut a pixel aside of where this does."""


def clip(**how: Any) -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {"image_size": SIDE, "patch_size": 8, **NARROW}
    return CLIPConfig(text_config=NARROW, vision_config=vision), CLIPImageProcessor(**how)


def siglip(**how: Any) -> tuple[Any, Any]:
    from transformers import SiglipConfig, SiglipImageProcessor

    vision = {"image_size": SIDE, "patch_size": 8, **NARROW}
    return SiglipConfig(text_config=NARROW, vision_config=vision), SiglipImageProcessor(**how)


def chinese_clip(**how: Any) -> tuple[Any, Any]:
    from transformers import ChineseCLIPConfig, ChineseCLIPImageProcessor

    vision = {"image_size": SIDE, "patch_size": 8, **NARROW}
    config = ChineseCLIPConfig(text_config=NARROW, vision_config=vision)
    return config, ChineseCLIPImageProcessor(**how)


SQUARE = {"height": SIDE, "width": SIDE}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "clip": (clip, {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}),
    "clip, a crop of four fifths": (
        clip,
        {"size": {"shortest_edge": 40}, "crop_size": SIDE, "image_mean": [0.1, 0.2, 0.3]},
    ),
    "clip, squashed before the crop": (clip, {"size": SQUARE, "crop_size": SQUARE}),
    "clip, bilinear": (
        clip,
        {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE, "resample": 2},
    ),
    "siglip": (siglip, {"size": SQUARE}),
    "siglip from −1 to 1": (
        siglip,
        {"size": SQUARE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}
        | {"image_std": [1.0] * 3},
    ),
    "siglip, not normalised": (siglip, {"size": SQUARE, "do_normalize": False}),
    "chinese_clip": (chinese_clip, {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
}  # fmt: skip


def own_pixels(folder: Path, image: Image.Image) -> Tensor:
    spec = resolve_joint_image(str(folder), "random", 1, Options())
    square = fit_square(np.array(image), spec.size, spec.crop, spec.resample)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (spec.mean, spec.std))
    assert RESIZE.format(spec.resample) == spec.fields["resize"]
    return (square / 255 - mean) / std


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_the_librarys_processor(
    case: str, nested: bool, tmp_path: Path
) -> None:
    """Within half a grey value of 255 on average, and 2 in the worst place."""
    prepare_torchvision()
    make, how = CASES[case]
    config, processor = make(**how)
    config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    if nested:  # as a processor with a tokenizer is written by transformers 5; it comes first
        path = tmp_path / "preprocessor_config.json"
        inner = json.loads(path.read_text())
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
        path.write_text('{"size": 999}')
    grey = torch.tensor(read_input_settings(tmp_path).std).view(3, 1, 1) * 255
    for image in PHOTOS:
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        found = own_pixels(tmp_path, image)
        assert found.shape == expected.shape == (3, SIDE, SIDE)
        apart = (found - expected).abs() * grey
        assert apart.mean() < 0.5
        assert apart.max() < 2.01


def test_a_whole_processor_is_read_as_it_is_written(tmp_path: Path) -> None:
    prepare_torchvision()
    from transformers import CLIPProcessor

    config, processor = clip(size={"shortest_edge": 40}, crop_size=SQUARE)
    config.save_pretrained(tmp_path)
    CLIPProcessor(processor, clip_tokenizer()).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert read_input_settings(tmp_path)[:2] == (SIDE, 0.8)


def test_the_share_of_the_crop_gives_the_short_side(tmp_path: Path) -> None:
    for short in range(32, 300):
        settings = {"size": {"shortest_edge": short}, "crop_size": SIDE, "do_center_crop": True}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        found = read_input_settings(tmp_path)
        assert needed_side(found.size, found.crop) == short


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": {"shortest_edge": 20}, "crop_size": 32, "do_center_crop": True},
        {"size": {"height": 64, "width": 64}, "crop_size": 32, "do_center_crop": True},
        {"resample": 0},
        {"do_resize": False},
        {"image_mean": [1, 2]},
        [],
    ],
)
def test_settings_that_cannot_be_followed(wrong: Any, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": wrong}))
    with pytest.raises(ModelError, match=r"processor_config.json cannot be read"):
        read_input_settings(tmp_path)


def test_pickled_weights_are_converted_by_the_command_that_is_named(tmp_path: Path) -> None:
    prepare_torchvision()
    from transformers import AutoModel, BertConfig, BertTokenizer

    folder = tmp_path / "a model"
    config = BertConfig(vocab_size=8, **NARROW)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "day"]
    BertTokenizer({word: place for place, word in enumerate(words)}).save_pretrained(folder)
    config.save_pretrained(folder)
    state = AutoModel.from_config(config).state_dict()
    state["tied"] = state["embeddings.word_embeddings.weight"]  # as heads are
    halves = list(state.items())
    for number, part in enumerate((halves[:5], halves[5:]), 1):
        torch.save(dict(part), folder / f"pytorch_model-{number:05}-of-00002.bin")
    with pytest.raises(ModelError) as caught:
        resolve_text(str(folder), "pretrained", 16, 1)
    hint = str(caught.value.hint)
    start = "Convert it to safetensors (pickled weights are never loaded): "
    assert hint.startswith(f"{start}python -c ")
    _, *arguments = shlex.split(hint.removeprefix(start))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], check=True, env=environment)
    assert [path.name for path in find_weight_files(folder)] == ["model.safetensors"]
    encoder = resolve_text(str(folder), "pretrained", 16, 1).load(torch.device("cpu"))
    found = encoder.encode(encoder.prepare(["a good day"])).tokens
    model = AutoModel.from_config(config).eval()
    model.load_state_dict({name: value for name, value in state.items() if name != "tied"})
    with torch.inference_mode():
        expected = model(torch.tensor([[2, 5, 6, 7, 3]])).last_hidden_state[0]
    torch.testing.assert_close(found.float(), expected, atol=4e-3, rtol=4e-3)
