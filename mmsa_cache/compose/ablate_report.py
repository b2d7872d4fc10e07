"""``mmsa ablate report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuse.evidence import parity
from fuse.evidence.parity_picture import picture
from fuse.evidence.report_figures import JUDGED_ROWS
from fuse.setting import Setting, parse
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import SettingsError

from .ablate import train_cells
from .banks import open_bank
from .samples import load_samples


def report(
    settings: Settings,
    *,
    assignments: Sequence[str] = (),
    outer: str = "report-parity",
    folds: int = 1,
    seeds: int = 3,
    stop: str = "held-out",
    workers: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Trains the cells of the report's tables 1 and 2 and figure 3.

    Args:
        settings: The command's settings.
        assignments: ``key=value`` over the report's own settings.
        outer: Rows that judge; the report's split.
        folds: See `ablate`.
        seeds: See `ablate`.
        stop: See `mmsa_cache.data.protocol.Protocol`.
        workers: See `ablate`.
        out: A Markdown file for the page; figure 3 is written beside it.

    Returns:
        As `ablate`; also ``changes``, ``page`` and ``picture``.
    """
    if out is not None and out.suffix != ".md":
        raise SettingsError(f"{out}: the page is Markdown.", "Give --out FILE.md.")
    values = parse(list(assignments))
    text, image = _first_positions(settings, values)
    table = parity.cells(values, text, image)
    record, found = train_cells(
        settings, table, "accuracy", outer=outer, folds=folds, seeds=seeds, stop=stop,
        workers=workers,
    )  # fmt: skip
    names = list(record["judged"])
    rarest = min(names, key=lambda name: record["judged"][name])
    if tuple(sorted(record["judged"].values())) != JUDGED_ROWS:
        record["notes"].append("these are not the report's rows: its figures are of others")
    record |= {
        "changes": parity.pairs(table, found["outcome"], found["labels"], names),
        "rarest_class": rarest,
        "pools": {"text": table[0].setting.text_pool, "image": table[0].setting.image_pool},
        "level": table[0].setting.level,
        "assignments": list(assignments),
    }
    name = "figure-3.svg" if out is None else out.with_suffix(".svg").name
    record |= {"page": parity.page(record, name), "picture": picture(record)}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out.with_suffix(".svg"), record["picture"].encode())
        write_atomically(out, record["page"].encode())
        say(f"Written: {out} and {name} beside it.")
    return record


def _first_positions(settings: Settings, values: dict[str, Any]) -> tuple[str, str]:
    """Pools at the first position of either side, which is what the report's code reads."""
    pair = replace(Setting(), **values).encoders
    bank = open_bank(settings, "train", load_samples(settings, "train"), [pair])
    return tuple(
        "cls" if "cls" in features.pools else "first" for features in (bank.text, bank.image)
    )  # type: ignore[return-value]
