"""``mmsa compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import format_table, say
from mmsa_cache.data.splits import IntArray, duplicate_groups
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.runs.directory import find_run, read_config

from .samples import load_samples

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_KINDS = {
    "only_first_right": "only {first} right",
    "only_second_right": "only {second} right",
    "both_wrong": "both wrong in different ways",
}


def compare(runs: Sequence[str], *, grouped: bool = False) -> dict[str, Any]:
    """Compares runs on the rows that all of them judged.

    Args:
        runs: Names or folders of two or more runs.
        grouped: Duplicate posts are resampled together, as the first run's data shows them.

    Returns:
        See `fuse.evidence.compare.compare`; also the runs' ``notes``.

    Raises:
        SettingsError: Fewer than two runs, or one of them twice.
        ModelError: A run is missing or damaged, or the runs do not go together.
        DataError: ``grouped``, and the first run's data cannot be read or lacks rows.
    """
    from fuse.evidence.compare import Judged, share
    from fuse.evidence.compare import compare as compare_shared
    from fuse.figures.predictions import read_predictions

    folders = [find_run(run) for run in runs]
    _check_different(runs, folders)
    configs = [_read_config(folder) for folder in folders]
    shared = share(
        [
            Judged(
                run,
                config["classes"],
                read_predictions(folder / "predictions.csv", config["classes"]),
            )
            for run, folder, config in zip(runs, folders, configs, strict=True)
        ]
    )
    for run, rows in zip(runs, shared.left_out, strict=True):
        if rows:
            say(f"Note: {rows} row(s) of {run} are left out: not every run judged them.")
    groups = _groups(folders[0], configs[0], shared.guids) if grouped else None
    notes = [note for config in configs for note in config.get("notes", [])]
    return {**compare_shared(shared, groups=groups), "notes": list(dict.fromkeys(notes))}


def _check_different(runs: Sequence[str], folders: Sequence[Path]) -> None:
    if len(runs) < 2:
        raise SettingsError("One run cannot be compared.", "Name two or more.")
    same = [
        f"{run} is {earlier}"
        for place, run in enumerate(runs)
        for at, earlier in enumerate(runs[:place])
        if folders[at].resolve() == folders[place].resolve()
    ]
    if same:
        raise SettingsError("A run is named twice.", "Name different ones.", same)


def _read_config(folder: Path) -> dict[str, Any]:
    """A run's configuration with its class names checked."""
    config: Any = read_config(folder)
    names = config.get("classes")
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise ModelError(
            f"{folder / 'config.json'} has no list of different class names under 'classes'.",
            "Train the run again.",
        )
    return config


def _groups(folder: Path, config: dict[str, Any], guids: Sequence[str]) -> IntArray:
    """Numbers from 0 of the duplicate groups that rows belong to, (rows,)."""
    import numpy as np

    try:
        settings = Settings.model_validate(config["settings"])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} does not say where the data is: {error}.",
            "Compare without --grouped.",
        ) from error
    samples = load_samples(settings, "train")
    group = dict(zip([s.guid for s in samples], duplicate_groups(samples).tolist(), strict=True))
    missing = [guid for guid in guids if guid not in group]
    if missing:
        raise DataError(
            f"{settings.data.root}: {len(missing)} judged guid(s) are not in the data.",
            "Compare without --grouped.",
            missing[:10],
        )
    return np.unique([group[guid] for guid in guids], return_inverse=True)[1]


def format_comparison(record: dict[str, Any], listed: int = 0) -> str:
    """What `compare` returned, as tables and sentences.

    Args:
        record: Of two runs a table of figures; of more a table of runs and one of all pairs.
        listed: Rows of each kind that are shown of those on which two runs differ.
    """
    parts = [_format_two(record)] if len(record["runs"]) == 2 else _format_many(record)
    parts += [_format_listed(pair, listed) for pair in record["pairs"] if listed]
    return "\n\n".join([*parts, _format_method(record)])


def _format_two(record: dict[str, Any]) -> str:
    (pair,) = record["pairs"]
    first, second = pair["first"], pair["second"]
    changes = {title: pair[key] for key, title in _FIGURES.items()} | {
        f"recall of {name} ({of['rows']} rows)": of for name, of in pair["recall"].items()
    }
    table = format_table(
        ["", first, second, "difference", _interval_title(record)],
        [
            [
                title,
                f"{of['first']:.4f}",
                f"{of['second']:.4f}",
                f"{of['difference']:+.4f}",
                f"{of['low']:+.4f} … {of['high']:+.4f}" if "low" in of else "",
            ]
            for title, of in changes.items()
        ],
    )
    rows = {_kind(pair, kind): len(found) for kind, found in pair["differing"].items()}
    counts = ", ".join(f"{title} ({count})" for title, count in rows.items())
    p_value = pair["mcnemar"]["p_value"]
    return (
        f"{table}\n\nThey differ on {sum(rows.values())} of {record['rows']} rows: {counts}.\n"
        f"Exact McNemar test of equal accuracy: p = {p_value:.3g}."
    )


def _format_many(record: dict[str, Any]) -> list[str]:
    titles = [part for title in _FIGURES.values() for part in (title, _interval_title(record))]
    runs = [
        [run["run"]]
        + [
            part
            for key in _FIGURES
            for part in (
                f"{run[key]:.4f}",
                "{low:.4f} … {high:.4f}".format(**run["intervals"][key]),
            )
        ]
        for run in record["runs"]
    ]
    pairs = [
        [f"{pair['second']} − {pair['first']}"]
        + [
            part
            for key in _FIGURES
            for part in (
                f"{pair[key]['difference']:+.4f}",
                "{low:+.4f} … {high:+.4f}".format(**pair[key]),
            )
        ]
        + [f"{pair['mcnemar'][key]:.3g}" for key in ("p_value", "p_holm")]
        for pair in record["pairs"]
    ]
    return [
        format_table(["run", *titles], runs),
        format_table(["difference", *titles, "McNemar p", "p, Holm"], pairs),
    ]


def _format_listed(pair: dict[str, Any], listed: int) -> str:
    """The first rows of each kind on which two runs differ."""
    return format_table(
        ["who is right", "guid", "tag", pair["first"], pair["second"]],
        [
            [_kind(pair, kind), row["guid"], row["tag"], row["first"], row["second"]]
            for kind, rows in pair["differing"].items()
            for row in rows[:listed]
        ],
    )


def _format_method(record: dict[str, Any]) -> str:
    return (
        f"{record['rows']} rows judged by every run; intervals from {record['resamples']} "
        f"resamples of {record['drawn']}, the same for every run."
    )


def _interval_title(record: dict[str, Any]) -> str:
    return f"{record['level']:.0%} interval"


def _kind(pair: dict[str, Any], kind: str) -> str:
    return _KINDS[kind].format(first=pair["first"], second=pair["second"])
