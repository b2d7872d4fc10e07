"""The same posts in the forms that people have them in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("negative", "neutral", "positive")
SPLITS = {"train": range(18), "validation": range(18, 22), "test": range(22, 26)}
WORDS = ("bad rain", "plain sea", "good day")
PICTURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}


def picture(post: int) -> bytes:
    pixels = np.random.default_rng(post).integers(0, 255, (40, 44, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def text(post: int) -> str:
    return f"{WORDS[post % 3]} {post}"


def name(post: int) -> str:
    return NAMES[post % 3]


def table_of(posts: range) -> pa.Table:
    """As the library ``datasets`` has it in memory."""
    columns = {
        "image": pa.array([{"bytes": picture(p), "path": f"{p}.jpg"} for p in posts], PICTURES),
        "text": [text(post) for post in posts],
        "label": [post % 3 for post in posts],
    }
    about = json.dumps({"info": {"features": FEATURES}})
    return pa.table(columns).replace_schema_metadata({"huggingface": about})


def halves(posts: range) -> list[range]:
    middle = len(posts) // 2
    return [posts[:middle], posts[middle:]]


def write_csv(root: Path) -> None:
    """A table a split, and a folder of pictures."""
    (root / "images").mkdir(parents=True)
    for split, posts in SPLITS.items():
        lines = ["text,image,label"]
        for post in posts:
            (root / f"images/{post}.jpg").write_bytes(picture(post))
            lines.append(f"{text(post)},images/{post}.jpg,{name(post)}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_parquet(root: Path) -> None:
    """A data set of the hub."""
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    for split, posts in SPLITS.items():
        for part, half in enumerate(halves(posts)):
            path = root / f"data/{split}-0000{part}-of-00002.parquet"
            pq.write_table(table_of(half), path, row_group_size=4)


def write_saved(root: Path) -> None:
    """As ``DatasetDict.save_to_disk`` writes it."""
    root.mkdir()
    (root / "dataset_dict.json").write_text(json.dumps({"splits": [*SPLITS]}))
    for split, posts in SPLITS.items():
        save_split(root / split, posts)


def save_split(folder: Path, posts: range, **state: Any) -> None:
    """As ``Dataset.save_to_disk`` writes it; the library keeps results beside it."""
    folder.mkdir()
    names = []
    for part, half in enumerate(halves(posts)):
        names.append({"filename": f"data-0000{part}-of-00002.arrow"})
        table = table_of(half)
        with pa.ipc.new_stream(str(folder / names[-1]["filename"]), table.schema) as file:
            file.write_table(table, max_chunksize=5)
    (folder / "cache-0123456789abcdef.arrow").write_bytes(b"of a map()")
    (folder / "state.json").write_text(json.dumps({"_data_files": names, **state}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


def write_shards(root: Path) -> None:
    """Shards of ``webdataset``."""
    root.mkdir()
    for split, posts in SPLITS.items():
        for part, half in enumerate(halves(posts)):
            with tarfile.open(root / f"{split}-00000{part}.tar", "w") as tar:
                for post in half:
                    about = json.dumps({"caption": text(post), "label": name(post)}).encode()
                    for ending, content in (("jpg", picture(post)), ("json", about)):
                        entry = tarfile.TarInfo(f"{post:04}.{ending}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))


def write_memes(root: Path) -> None:
    """As Hateful Memes has it: rows that two files share, and tests without labels."""
    (root / "img").mkdir(parents=True)
    dev, test = SPLITS["validation"], SPLITS["test"]
    files = {"train": SPLITS["train"], "dev_seen": dev[:3], "dev_unseen": dev[1:]}
    for stem, posts in (files | {"test_seen": test[:2], "test_unseen": test[2:]}).items():
        lines = []
        for post in posts:
            (root / f"img/{post:05}.jpg").write_bytes(picture(post))
            row = {"id": post, "img": f"img/{post:05}.jpg", "text": text(post), "label": post % 2}
            if stem.startswith("test"):
                del row["label"]
            lines.append(json.dumps(row))
        (root / f"{stem}.jsonl").write_text("\n".join(lines) + "\n")


SOURCES: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "saved": write_saved,
    "shards": write_shards,
    "memes": write_memes,
}
