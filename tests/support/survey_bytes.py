"""``FOLDER ROWS``: the memory that reading a data folder takes, as JSON; its pairs are faked.

In a process of its own: what other tests leave behind allocates too.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data import reader, scan
from mmsa_cache.data.scan import scan_split


def main() -> None:
    root, rows = Path(sys.argv[1]), int(sys.argv[2])
    guids = [str(10**9 + number) for number in range(rows)]
    (root / "pairs").mkdir()
    (root / "pairs" / f"{guids[0]}.txt").write_text("post")
    lines = "".join(f"{guid},neutral\n" for guid in guids)
    (root / "train.txt").write_text("guid,tag\n" + lines)
    faked: Any = reader.PairReader
    faked.read_text_bytes = lambda self, row: row.guid.encode() * 10
    faked._picture_name = lambda self, row: f"{row.guid}.jpg"
    faked._read_picture = lambda self, row, name: row.guid.encode()
    scan._WINDOW = 512
    data = DataSettings(root=root)
    scan_split(data, "train")  # what is imported late is no matter of the rows
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    found = scan_split(data, "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    record = {
        "same": found.samples.guids == guids,
        "labels": np.unique(found.samples.labels).tolist(),
        "arrow": pa.total_allocated_bytes() - before,
        "table": found.samples.table.nbytes,
        "peak": peak,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
