"""``mmsa doctor``."""

from __future__ import annotations

import typer

from mmsa_cache.console import print_result, say

from .options import ENCODERS
from .verb import Call, verb


@verb(*ENCODERS)
def doctor(call: Call) -> None:
    """Say what is here and what is missing, and what to do about it.

    Versions, device, memory, disk, hub, data, store, encoders and extras are looked at.
    What is missing is named with what to do about it; nothing is downloaded or changed.
    """
    from mmsa_cache.compose.doctor import diagnose

    found = diagnose(call.settings)
    if not call.print_json(found.as_json()):
        width = max(len(finding.what) for finding in found.findings)
        for finding in found.findings:
            mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding.state]
            cure = f"\n{' ' * (width + 6)}→ {finding.cure}" if finding.cure else ""
            print_result(f"{mark}  {finding.what:{width}}  {finding.found}{cure}")
        say("Something stops commands." if found.exit_code else "Nothing stops a command.")
    if found.exit_code:
        raise typer.Exit(found.exit_code)
