"""The working folder: its posts, and the features that they must have."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from extract.inputs.augment import POLICY
from extract.plan import RowPlan, plan_rows
from mmsa_cache.compose.extraction.readers import reader_of
from mmsa_cache.compose.session.encoders import resolve_encoder
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.table import SampleTable
from mmsa_cache.names import MODALITIES
from mmsa_cache.store.encoder import FEATURES
from mmsa_cache.store.index import INDEX
from tests.support.pairs import TONE, make_pairs
from tests.support.reading import read_split
from tests.support.shards import Row, rows_of
from tests.support.tiny import tiny_toml

TEST_ROWS = 12
_AT_FIRST = 0.6
"""Share of the posts that are labelled at first."""
_COPIES = 1
# Rows are encoded one by one: their bytes are then those of any company.
_MORE = f"""[cache]
shard_rows = 8
[extract]
batch_size = 1
variants = {_COPIES}
"""
_STUDY = """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 1
batch_size = 32
text_dim = 16
image_dim = 16
head = ""
[space]
fusion = ["concat", "attention_combine"]
loss = ["acb", "ce"]
alpha = [0.25, 0.5, 0.75]
"""
Rows = dict[tuple[str, bytes], Row]
"""By modality and key."""


class Project:
    """A folder of posts, of which some are labelled, with tiny encoders of random weights.

    Args:
        folder: Empty.
        text_model: Folder of a tiny text model.
        posts: All there will ever be; texts and pictures are written at once.
        chance: Draws the posts that are labelled at first.
    """

    def __init__(self, folder: Path, text_model: Path, posts: int, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.cache = folder / "cache"
        make_pairs(folder / "posts", posts, TEST_ROWS)
        (folder / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t", _MORE))
        (folder / "studies").mkdir()
        (folder / "studies/mixed.toml").write_text(_STUDY)
        self._train = read_split(folder / "posts", "train")
        self._test = read_split(folder / "posts", "test")
        self.version = 0
        """Grows with every change of the data."""
        guids = list(self._train.guids)
        self.labels = {
            guid: chance.choice(sorted(TONE))
            for guid in sorted(chance.sample(guids, int(_AT_FIRST * len(guids))))
        }
        """Of the posts that are in the label file."""
        self.fewest = len(self.labels) // 2
        """So many stay."""
        self._write_labels()
        self._plans = {
            modality: [
                self._plan(self._train, modality, _COPIES),
                self._plan(self._test, modality, 0),
            ]
            for modality in MODALITIES
        }
        self.reference = self._encode()

    @property
    def _settings(self) -> Settings:
        return load_settings(folder=self.folder, environ={})

    def _plan(self, samples: SampleTable, modality: str, copies: int) -> RowPlan:
        classes = dict.fromkeys(range(len(TONE)), copies)
        return plan_rows(list(samples), classes, f"{POLICY}:{self._settings.seed}", modality)

    @torch.inference_mode()
    def _encode(self) -> Rows:
        """Every row that the store may ever hold: read, encoded alone, and never stored."""
        found: Rows = {}
        for modality, plans in self._plans.items():
            spec = resolve_encoder(self._settings, modality)
            reader = reader_of(spec, self._settings.seed)
            encoder = spec.load(torch.device("cpu"))
            for row in (row for plan in plans for row in plan):
                value, operation = reader(row)
                encoded = encoder.encode(encoder.prepare([value]))
                parts = (encoded.tokens, encoded.pooled[0])
                tokens, pooled = (part.numpy().tobytes() for part in parts)
                found[modality, row.key] = (operation, tokens, pooled, b"")
        return found

    def wanted(self) -> set[tuple[str, bytes]]:
        """The rows that the posts of now need."""
        return {
            (modality, row.key)
            for modality, plans in self._plans.items()
            for plan in plans
            for row in plan
            if plan is plans[1] or row.sample.guid in self.labels
        }

    @property
    def absent(self) -> list[str]:
        """Posts that are not in the label file."""
        return [guid for guid in self._train.guids if guid not in self.labels]

    def change(self, labels: dict[str, str], without: Iterable[str] = ()) -> None:
        """Labels some posts, anew or otherwise than before, and takes others out."""
        gone = set(without)
        self.labels = {g: t for g, t in (self.labels | labels).items() if g not in gone}
        self.version += 1
        self._write_labels()

    def _write_labels(self) -> None:
        lines = "".join(f"{guid},{tag}\n" for guid, tag in self.labels.items())
        (self.folder / "posts/train.txt").write_text(f"guid,tag\n{lines}")


def rows_in_store(cache: Path) -> Rows:
    """Every row of a store; none may be there twice, and no shard be damaged."""
    found: Rows = {}
    for index in sorted(cache.glob(f"{FEATURES}/*/*/{INDEX}")):
        modality = index.parent.parent.name
        assert modality in MODALITIES, index
        found |= {(modality, key): row for key, row in rows_of(index.parent).items()}
    return found


def leftovers(folder: Path, below: Sequence[str] = ("cache", "runs", "studies")) -> list[str]:
    """Temporary files."""
    return sorted(
        str(path.relative_to(folder))
        for name in below
        for path in (folder / name).rglob(".*")
        if path.name.startswith((".tmp-", ".push-"))
    )
