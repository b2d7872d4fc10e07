"""A run of an older version, and the files of any run."""

from __future__ import annotations

import json
from pathlib import Path

STORED = Path(__file__).resolve().parents[1] / "assets" / "run_57fd047"
WANT: dict[str, float] = json.loads((STORED / "predicted.json").read_text())[0]["probabilities"]
FILES = {
    "config.json": "record",
    "metrics.json": "figures",
    "env.json": "environment",
    "studies.json": "snapshots",
    "command.txt": "command",
    "predictions.csv": "predictions",
    "metrics.jsonl": "history",
}
"""Files of a run, and the properties of `RunFolder` that read them."""
