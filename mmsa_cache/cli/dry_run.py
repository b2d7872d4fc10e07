"""``--dry-run`` of ``mmsa extract`` and ``mmsa search``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.filesize import decimal

from mmsa_cache.console import print_result, say

from .output import format_duration, show_table
from .verb import Call

if TYPE_CHECKING:
    from mmsa_cache.compose.search.search import SearchRequest


def show_extraction(call: Call, split: str, encoders: str) -> None:
    """Shows what an extraction would do."""
    from mmsa_cache.compose.extraction.dry_run import plan_extraction

    planned = plan_extraction(call.settings(), split, encoders)
    if call.print_json(planned):
        return
    rows = [
        asdict(of)
        | {
            "size": "?" if of.bytes is None else decimal(of.bytes),
            "time": "?" if of.seconds is None else format_duration(of.seconds),
            "download": _download(of.here, of.download_bytes),
        }
        for of in planned
    ]
    columns = ["split", "modality", "encoder", "rows", "missing", "size", "time", "download"]
    show_table(rows, columns)
    total = decimal(sum(of.bytes or 0 for of in planned))
    seconds = format_duration(sum(of.seconds or 0 for of in planned))
    more = ", without what is to be downloaded" if any(not of.here for of in planned) else ""
    say(f"About {total} and {seconds}{more}. Nothing was computed, fetched or written.")


def _download(here: bool, size: int | None) -> str:
    if here:
        return "–"
    return "of unknown size" if size is None else decimal(size)


def show_search(call: Call, request: SearchRequest) -> None:
    """Shows what a search would do."""
    from mmsa_cache.compose.search.dry_run import plan_search
    from mmsa_cache.compose.session.session import Session

    planned = plan_search(Session(call.settings()), request)
    if call.print_json(planned):
        return
    shown = asdict(planned) | {
        "seconds_a_trial": format_duration(planned.seconds_a_trial),
        "seconds": format_duration(planned.seconds),
    }
    lines = [f"{k.replace('_', ' ')}: {v}" for k, v in shown.items() if v is not None]
    print_result("\n".join(lines))
    say("Nothing was searched.")
