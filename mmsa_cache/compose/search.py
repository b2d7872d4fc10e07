"""``mmsa search`` and ``mmsa bench search``."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import format_table, print_result, say
from mmsa_cache.data.splits import duplicate_groups
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import EncoderPair
from mmsa_cache.runs.tracking import (
    JsonLines,
    Place,
    TrialLines,
    check_trackers,
    log_run,
    scalars,
    tracking,
)

from .pipeline import notes_of, open_bank, origin_of, pick_device
from .samples import load_samples
from .search_view import watch

STUDIES = Path("studies")
"""Where studies lie, and what is recorded of them."""
_SECONDS_BETWEEN_LOOKS = 0.5
_HEADERS = {"low": "5 %", "high": "95 %", "alpha": "α", "beta": "β"}


def search(
    settings: Settings,
    name: str,
    trials: int,
    *,
    workers: int | None = None,
    storage: str | None = None,
    how: str = "best",
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs a study; returns its choice, what it is worth outside, and what mattered.

    Args:
        settings: The command's settings.
        name: The study.
        trials: Finished trials in all.
        workers: Worker processes; None takes one a usable core, or one a GPU.
        storage: Address of a database; None is the working folder's own.
        how: ``best`` or ``one-se``.
        track: Where it is recorded besides JSON lines, see `tracking.TRACKERS`.
    """
    from fuse.search import search as engine
    from fuse.search.ledger import DATABASE
    from fuse.search.selection import SELECT
    from fuse.search.study_file import find_study, read_study

    if how not in SELECT:
        raise SettingsError(f"Unknown --select {how!r}.", f"Valid: {', '.join(SELECT)}.")
    study = read_study(find_study(name))
    if not study.space:
        raise SettingsError(
            f"The study {name!r} has no space: it is one setting.",
            f"Train it: mmsa train --study {name}.",
        )
    check_trackers(track)
    devices = devices_of(settings.device, workers)
    place = Place(study.name, STUDIES / "tensorboard" / study.name, _protocol(study))
    with (
        prepared(settings, study.encoder_pairs(), _sides(study), STUDIES) as ready,
        tracking(track, place) as tracked,
        watch(f"study {study.name}, {len(devices)} worker(s)") as progress,
    ):
        lines = TrialLines(JsonLines(STUDIES / f"{study.name}.jsonl"), tracked)

        def on_change(now: Any) -> None:
            lines.add(now.trials)
            progress(now)

        outcome = engine.search(
            study,
            trials=trials,
            seed=settings.seed,
            storage=storage or DATABASE,
            devices=devices,
            how=how,
            on_change=on_change,
            **ready,
        )
        tracked.final = scalars(outcome.record)
    lines.end(tracked.final)
    log_run("search", study.name, outcome.record["seconds"], tracked.final)
    notes = notes_of(settings, study.encoder_pairs()) + _warnings(outcome.record)
    return outcome.record | {"notes": notes}


def _sides(study: Any) -> list[int]:
    """Sides of the grids that a study's trials may ask for."""
    from fuse.search.space import candidates

    return [study.fixed.get("grid", 0), *candidates(study.space.get("grid", [0]))]


def _protocol(study: Any) -> dict[str, Any]:
    """What trackers show of a study: the protocol and what is fixed."""
    found = {"study": study.name, "outer": study.outer, "folds": study.folds}
    return {**found, "seeds": study.seeds, "metric": study.metric, **study.fixed}


@contextlib.contextmanager
def prepared(
    settings: Settings, pairs: Sequence[EncoderPair], sides: Iterable[int], folder: Path
) -> Iterator[dict[str, Any]]:
    """The features, verified once, as `search.search` and `ablation.run` of `fuse` take them.

    Args:
        settings: The command's settings.
        pairs: See `pipeline.open_bank`.
        sides: See `source.shared_grids`.
        folder: See `source.shared_grids`.
    """
    from mmsa_cache.features.source import shared_grids

    samples = load_samples(settings, "train")
    bank = open_bank(settings, "train", samples, pairs)
    origin = origin_of(settings, bank, pairs)
    labels = bank.labels.numpy()
    making = shared_grids(bank, sides, folder, pairs)
    del bank  # once its grids are made, only the workers map the features
    with making as source:
        yield {
            "source": source,
            "labels": labels,
            "groups": duplicate_groups(samples),
            "names": tuple(origin["classes"]),
            "origin": origin,
        }


def devices_of(device: str, workers: int | None) -> list[str]:
    """A device a worker: the CPU for each, or the GPUs in turn."""
    import torch

    kind = pick_device(device)
    if kind.type == "cpu":
        return ["cpu"] * (workers or usable_cores())
    gpus = [str(kind)] if kind.index is not None else []
    gpus = gpus or [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [gpus[i % len(gpus)] for i in range(workers or len(gpus))]


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and a container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    return cores or 1


def _warnings(record: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    alike, complete = len(record["cannot_be_told_apart"]), record["complete_trials"]
    if alike > 1:
        notes.append(
            f"{alike} of {complete} complete trials cannot be told apart from the best one "
            "(paired over folds, 95 %)"
            + ("; --select one-se takes the simplest near it" if record["select"] == "best" else "")
        )
    if record["looks_at_outer_rows"] > 1:
        notes.append(
            f"the outer rows have judged {record['looks_at_outer_rows']} choices of this study: "
            "what they say is no longer quite unseen"
        )
    return notes


def show(record: dict[str, Any]) -> None:
    """Prints what `search` returned."""
    low, high = record["optimism_interval"]
    trials = record["trials"]
    figures = ("inner_score", "outer_score", "optimism_gap", "outer_score_together")
    inner, outer, gap, together = (f"{record[key]:.4f}" for key in figures)
    interval = f"{low:+.4f} … {high:+.4f}"
    parts = [
        format_table(
            ["study", "trial", "inner", "outer", "gap", "95 %", "outer, together"],
            [[record["study"], str(record["trial"]), inner, outer, gap, interval, together]],
        ),
        f"{trials['complete']} complete, {trials['pruned']} pruned, {trials['fail']} failed "
        f"trials; {record['metric']}; {record['outer_rows']} outer rows; "
        f"{record['seconds']:.0f} s, {100 * record['overhead_share']:.0f} % outside training.",
    ]
    for header, key in (
        (["fusion", "trials", "complete", "score", "trial"], "by_fusion"),
        (["parameter", "median", "low", "high", "trials"], "importance"),
        (["alpha", "beta", "trials", "mean", "best"], "alpha_beta"),
    ):
        keys = ["value" if name == "fusion" else name for name in header]
        cells = [[_cell(row[name]) for name in keys] for row in record[key]]
        if cells:
            parts += ["", format_table([_HEADERS.get(name, name) for name in header], cells)]
    print_result("\n".join(parts))
    for failed in record["failed"]:
        say(f"Trial {failed['trial']} failed: {failed['reason']}")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def list_studies(storage: str | None) -> list[dict[str, Any]]:
    """Studies there is a file of, and studies in the database."""
    from fuse.search.ledger import DATABASE
    from fuse.search.search import Summary, summaries
    from fuse.search.study_file import known_studies

    files = known_studies()
    found = {summary.name: summary for summary in summaries(storage or DATABASE)}
    rows = []
    for name in sorted(files.keys() | found.keys()):
        summary = found.get(name, Summary(name))
        rows.append(
            {
                "study": name,
                "file": str(files[name]) if name in files else None,
                "finished": summary.complete + summary.pruned,
                **{key: getattr(summary, key) for key in ("complete", "pruned", "failed")},
                "best": summary.score,
                "age_seconds": None if summary.last is None else time.time() - summary.last,
            }
        )
    return rows


def bench(settings: Settings, name: str, trials: int, workers: int | None) -> dict[str, Any]:
    """Measures a search by N workers against the same trials by one, each in a fresh database.

    Args:
        settings: The command's settings.
        name: The study.
        trials: Finished trials of each run.
        workers: N; None takes one a usable core, or one a GPU.
    """
    import torch

    from fuse.search import search as engine
    from fuse.search.ledger import read_records
    from fuse.search.study_file import find_study, read_study

    study = read_study(find_study(name))
    devices = devices_of(settings.device, workers)
    figures: dict[str, Any] = {}
    queued: list[Any] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        prepared(settings, study.encoder_pairs(), _sides(study), STUDIES) as ready,
    ):
        for key, used in (("seconds", devices), ("seconds_one_worker", devices[:1])):
            database = Path(folder) / key / "studies.db"
            started, used_before = time.monotonic(), _cpu_seconds()
            with _memory() as peak, watch(f"{name}, {len(used)} worker(s)") as progress:
                outcome = engine.search(
                    # Queued trials are given up by the same rule, so the work is nearly the same.
                    study,
                    trials=trials,
                    seed=settings.seed,
                    storage=database,
                    devices=used,
                    on_change=progress,
                    queued=queued,
                    **ready,
                )
            figures[key] = time.monotonic() - started
            # On a machine that others use too, this says what the work itself took.
            figures[f"cpu_{key}"] = _cpu_seconds() - used_before
            if key == "seconds":
                figures |= {f"{name}_bytes": value for name, value in peak.items()}
                figures["overhead_share"] = outcome.record["overhead_share"]
                figures["pruned"] = outcome.record["trials"]["pruned"]
                queued = read_records(database)[0].trials
    on_gpu = devices[0] != "cpu"
    return {
        "study": name,
        "trials": trials,
        "workers": len(devices),
        **figures,
        "ratio_workers": figures["seconds_one_worker"] / figures["seconds"],
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name(0) if on_gpu else platform.processor() or "cpu",
        "torch": torch.__version__,
    }


@contextlib.contextmanager
def _memory() -> Iterator[dict[str, int]]:
    """Peak memory of this process and its children together while the block runs.

    ``peak_rss`` counts shared pages once (the sum of proportional set sizes); ``peak_rss_summed``
    counts them for every process that maps them.
    """
    peak = {"peak_rss": 0, "peak_rss_summed": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            sizes = [_sizes(pid) for pid in (os.getpid(), *_children(os.getpid()))]
            for place, key in enumerate(peak):
                peak[key] = max(peak[key], sum(size[place] for size in sizes))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _cpu_seconds() -> float:
    """Processor time of this process and its ended children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _sizes(pid: int) -> tuple[int, int]:
    """Proportional and resident set size of a process, bytes; zeros if it has gone."""
    found = {"Pss": 0, "Rss": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, value, *_ = line.split()
            if key.rstrip(":") in found:
                found[key.rstrip(":")] = 1024 * int(value)
    return found["Pss"], found["Rss"]
