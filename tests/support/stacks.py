"""Members on generated features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fuse.setting import Setting
from fuse.training.task import Task
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from tests.support.shards import make_shard

NAMES = ("a", "b", "c")
ROWS = 60
TASKS = [Task(np.arange(k, k + 40), np.arange(20), k) for k in range(4)]
SMALL = Setting(
    text_dim=8, image_dim=8, head="8", heads=2, layers=1, ffn=8, epochs=3, batch_size=16,
    learning_rate=3e-3, dropout=0.2, landmarks=10,
)  # fmt: skip


def make_bank() -> FeatureBank:
    sides = [
        ModalityFeatures([replace(make_shard(0, ROWS, 1 + side), pools=pools)], "made up")
        for side, pools in enumerate((("cls", "mean"), ("first", "mean")))
    ]
    return FeatureBank(*sides, [*map(str, range(ROWS))], [row % 3 for row in range(ROWS)])
