"""What trackers wrote."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Values = dict[tuple[str, int], float]


def read_events(folder: Path) -> Values:
    """Scalars of the event files, by tag and step."""
    from tensorboardX.proto.event_pb2 import Event

    found: Values = {}
    for path in folder.glob("events.out.tfevents.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag, event.step] = value.simple_value
    return found


def read_mlflow(database: Path) -> list[tuple[Values, dict[str, str], str]]:
    """Metrics by name and step, parameters and status of every run of a store, oldest first."""
    store = sqlite3.connect(database)
    found = []
    for run, status in store.execute("SELECT run_uuid, status FROM runs ORDER BY start_time"):
        metrics = store.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run,))
        params = store.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,))
        values = {(key, step): value for key, step, value in metrics}
        found.append((values, dict(params.fetchall()), status))
    store.close()
    return found


def read_wandb(folder: Path) -> list[tuple[Values, dict[str, Any], int]]:
    """Values by name and step (final ones at 0), settings and exit code of every offline run."""
    import wandb

    wandb.teardown()  # its service writes on after a run is finished; a process's end waits too
    paths = folder.glob("offline-run-*/run-*.wandb")
    return [_wandb_run(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]


def _wandb_run(path: Path) -> tuple[Values, dict[str, Any], int]:
    from wandb.proto.wandb_internal_pb2 import Record

    values: Values = {}
    config: dict[str, Any] = {}
    code = -1
    for data in _log_records(path.read_bytes()):
        record = Record.FromString(data)
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        row = _items(record.history.item)
        for key, value in row.items():
            step = row.get(f"{key.split('/')[0]}/step")
            if isinstance(value, (int, float)) and step is not None:
                values[key, step] = value
        final = _items(record.summary.update)
        values |= {(key, 0): value for key, value in final.items() if key.startswith("final/")}
        if record.HasField("exit"):
            code = record.exit.exit_code
    return values, config, code


def _items(items: Any) -> dict[str, Any]:
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _log_records(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, in blocks of 32 KiB, after 7 bytes of header."""
    assert data[:4] == b":W&B"
    at, record = 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
