"""``FOLDER PAIRS``: extracts generated pairs with the tiny random encoders of ``./mmsa.toml``.

Prints, a modality each, resident bytes and open files at 10, 50 and 100 % of the rows.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from extract.engine import extract
from extract.inputs.decode import decode
from extract.plan import EncodingJob, Row, plan_rows
from mmsa_cache.compose.session.encoders import resolve_encoder
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.writer import FeatureWriter

SHARES = (10, 50, 100)


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def text(number: int) -> str:
    return " ".join(["good", "bad", "plain", "day", "sea", "rain", "sun"][: 1 + number % 7])


def look() -> tuple[int, int]:
    """Resident bytes and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def main() -> None:
    folder, pairs = Path(sys.argv[1]), int(sys.argv[2])
    settings, device = load_settings(), torch.device("cpu")
    hashes = (sha256(str(i).encode()).hexdigest() for i in range(pairs))
    samples = [Sample(str(i), i % 3, text(i), None, h, h) for i, h in enumerate(hashes)]
    record: dict[str, list[Any]] = {}
    for modality in ("text", "image"):
        spec = resolve_encoder(settings, modality)
        rows = plan_rows(samples, {}, "none", modality)

        def read(row: Row, modality: str = modality) -> tuple[Any, str]:
            number = int(row.sample.guid)
            if modality == "text":
                return text(number), ""
            return decode(picture(number), f"{number}.jpg", None), ""

        looks: list[Any] = []
        done = 0

        def advance(count: int, looks: list[Any] = looks) -> None:
            nonlocal done
            done += count
            if len(looks) < len(SHARES) and 100 * done >= SHARES[len(looks)] * pairs:
                looks.append((SHARES[len(looks)], *look()))

        writer = FeatureWriter(folder, StoredEncoder.of(spec.identity))
        with writer.claim(lambda: None):
            watch = lambda a=advance: nullcontext(a)  # noqa: E731
            job = EncodingJob(rows, writer, watch=watch, reader=read, encoder=spec.load(device))
            extract([job], device, shard_rows=256, batch_size=64)
        assert writer.rows == job.computed == pairs
        record[modality] = looks
    print(json.dumps(record))


if __name__ == "__main__":
    main()
