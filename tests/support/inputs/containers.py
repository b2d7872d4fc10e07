"""Parquet, Arrow folders, tar shards: pictures inside, and beside."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .build import ROWS, TRAIN, Build, Input, both, files, jpeg, labelled

_TEXTS = [text for _, _, text in ROWS]
_LABELS = [label for _, label, _ in ROWS]
_PATHS = [f"{guid}.jpg" for guid, _, _ in ROWS]
_BYTES = [jpeg(n) for n in range(3)]
_CODES = [0, 1, 2]
_NAMES = ["positive", "neutral", "negative"]
_INSIDE = [{"bytes": data, "path": path} for data, path in zip(_BYTES, _PATHS, strict=True)]
_FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "image": {"_type": "Image"},
    "label": {"names": _NAMES, "_type": "ClassLabel"},
}
_HUB = {b"huggingface": json.dumps({"info": {"features": _FEATURES}}).encode()}


def table(**columns: Sequence[Any]) -> pa.Table:
    return pa.table({name: pa.array(list(values)) for name, values in columns.items()})


def parquet(made: Mapping[str, pa.Table], pictures: int = 0) -> Build:
    """Parquet files, and pictures beside."""

    def build(root: Path) -> None:
        files({}, pictures)(root)
        for name, content in made.items():
            (root / name).parent.mkdir(exist_ok=True)
            pq.write_table(content, root / name, row_group_size=2)

    return build


def saved(splits: Mapping[str, pa.Table]) -> Build:
    """A folder as ``datasets.DatasetDict.save_to_disk`` writes it; ``""``: that of one data set."""

    def build(root: Path) -> None:
        for split, content in splits.items():
            folder = root / split
            folder.mkdir(exist_ok=True)
            with (
                pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
                pa.ipc.new_stream(sink, content.schema) as writer,
            ):
                writer.write_table(content, 2)
            (folder / "dataset_info.json").write_text(json.dumps({"features": _FEATURES}))
            (folder / "state.json").write_text(
                json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
            )
        if "" not in splits:
            (root / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))

    return build


def tar(members: Mapping[str, bytes], name: str = "train-000.tar") -> Build:
    """A shard."""

    def build(root: Path) -> None:
        with tarfile.open(root / name, "w") as shard:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))

    return build


def _shard(label: str) -> dict[str, bytes]:
    """The three posts, their labels in a file of this ending."""
    found = {}
    for n, (guid, tag, text) in enumerate(ROWS):
        found |= {f"{guid}.jpg": _BYTES[n], f"{guid}.txt": text.encode()}
        about = json.dumps({"label": tag}) if label == "json" else str(tag)
        found[f"{guid}.{label}"] = about.encode()
    return found


_STRUCTS = table(text=_TEXTS, image=_INSIDE, label=_LABELS)
_CLASSES = table(text=_TEXTS, image=_INSIDE, label=_CODES).replace_schema_metadata(_HUB)

CONTAINERS = (
    Input(
        "Parquet, paths of pictures",
        parquet({"train.parquet": table(text=_TEXTS, image=_PATHS, label=_LABELS)}, 3),
        TRAIN,
    ),
    Input(
        "Parquet, pictures as bytes",
        parquet({"train.parquet": table(text=_TEXTS, image=_BYTES, label=_LABELS)}),
        TRAIN,
    ),
    Input("Parquet, pictures as datasets has them", parquet({"train.parquet": _STRUCTS}), TRAIN),
    Input("Parquet, ClassLabel", parquet({"train.parquet": _CLASSES}), TRAIN),
    Input(
        "Parquet, whole numbers as labels, guids as floats",
        parquet(
            {"train.parquet": table(id=[7.0, 8.0, 9.0], text=_TEXTS, image=_BYTES, label=[1, 0, 1])}
        ),
        {
            "train": [
                (guid, label, text) for guid, label, text in zip("789", "101", _TEXTS, strict=True)
            ]
        },
    ),
    Input(
        "Parquet in data/, train in two parts, validation",
        parquet(
            {
                "data/train-00000-of-00002.parquet": _STRUCTS.slice(0, 2),
                "data/train-00001-of-00002.parquet": _STRUCTS.slice(2),
                "data/validation-00000-of-00001.parquet": _STRUCTS.slice(0, 1),
            }
        ),
        {
            "train": [*ROWS[:2], ("train-00001-of-00002-1", *ROWS[2][1:])],
            "val": ROWS[:1],
        },
        notes=("train-00001-of-00002-1",),
    ),
    Input(
        "Parquet, a column of lists",
        parquet({"train.parquet": table(text=[["a"], ["b"]], image=_BYTES[:2])}),
        problems=("train.parquet: the column 'text' holds list",),
    ),
    Input(
        "Parquet that is none",
        files({"train.parquet": "text,image,label\n"}),
        problems=("it is no Parquet file, or damaged",),
    ),
    Input(
        "save_to_disk, three splits",
        saved(
            {"train": _CLASSES, "validation": _CLASSES.slice(0, 1), "test": _CLASSES.slice(1, 1)}
        ),
        {"train": ROWS, "val": ROWS[:1], "test": [("0", *ROWS[1][1:])]},
    ),
    Input("save_to_disk, one data set", saved({"": _CLASSES}), TRAIN),
    Input(
        "save_to_disk, labels of −1",
        saved(
            {
                "train": _CLASSES,
                "test": table(
                    text=_TEXTS, image=_INSIDE, label=[-1, -1, -1]
                ).replace_schema_metadata(_HUB),
            }
        ),
        {"train": ROWS, "test": labelled(None, None, None)},
    ),
    Input("tar shard with .cls", tar(_shard("cls")), TRAIN),
    Input("tar shard with .json", tar(_shard("json")), TRAIN),
    Input(
        "tar shards of two splits",
        both(tar(_shard("cls"), "train-000.tar"), tar(_shard("cls"), "val-000.tar")),
        {"train": ROWS, "val": ROWS},
    ),
    Input(
        "a gzipped shard",
        files({"train.tar": b"\x1f\x8b\x08" + bytes(600)}),
        problems=("it is compressed; unpack it: gunzip -c train.tar",),
    ),
)
