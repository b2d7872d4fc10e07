"""Data folders with good rows, and what became of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mmsa_cache.cli.main import app
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.store.encoder import FEATURES
from mmsa_cache.store.index import INDEX
from mmsa_cache.store.keys import content_keys
from mmsa_cache.store.listing import list_features
from mmsa_cache.store.reader import open_features

TAGS = ["positive", "neutral", "negative"]
ROWS = [f"{n}" for n in range(3)] + ["odd"] + [f"{n}" for n in range(3, 6)]
WORDS = ["good day", "bad sea", "plain rain", "sun sea", "good rain", "bad sun", "plain sea"]
GOOD = [guid for guid in ROWS if guid != "odd"]


def features(cache: Path, split: str = "train") -> dict[tuple[str, str], tuple[bytes, bytes]]:
    """The bytes of every original's features, by modality and guid."""
    found = {}
    _, samples = read_split(split_path(cache, split))
    for stored in list_features(cache):
        opened = open_features(stored.folder, verify=False)
        places = opened.find_rows(content_keys(samples.digests(stored.modality)))
        for guid, place in zip(samples.guids, places.tolist(), strict=True):
            assert place >= 0, f"{stored.folder} has no row of {guid}"
            number = int(np.searchsorted(opened.starts, place, side="right")) - 1
            shard, row = opened.shards[number], place - int(opened.starts[number])
            tokens = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]]
            found[stored.modality, guid] = (tokens.tobytes(), shard.pooled[row].tobytes())
    return found


def label_file(guids: list[str]) -> str:
    tag = {guid: TAGS[place % 3] for place, guid in enumerate(ROWS)}
    return "guid,tag\n" + "".join(f"{guid},{tag.get(guid, 'neutral')}\n" for guid in guids)


def make_data(root: Path, guids: list[str]) -> Path:
    (root / "pairs").mkdir(parents=True)
    for guid in guids:
        place = ROWS.index(guid)
        (root / "pairs" / f"{guid}.txt").write_text(WORDS[place])
        (root / "pairs" / f"{guid}.jpg").write_bytes(saved(noise(place)))
    (root / "train.txt").write_text(label_file(guids))
    return root


def mmsa(folder: Path, *arguments: str, code: int = 0) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MMSA_TEST_DATA", raising=False)  # the tests' own, no setting of mmsa
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def sealed(cache: Path) -> dict[str, bytes]:
    """The shards and indexes of all features."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for pattern in ("*.h5", INDEX)
        for path in cache.glob(f"{FEATURES}/*/*/{pattern}")
    }
