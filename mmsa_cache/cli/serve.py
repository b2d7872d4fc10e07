"""``mmsa serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsa_cache.console import print_result, say
from mmsa_cache.errors import require_extra

from .options import RUN_OR_HUB_HELP, RUN_SOURCES, Decide, Online, complete_run
from .verb import Call, verb

_MB = 1 << 20
OPEN_TO_ALL = (
    "Note: whoever reaches this address can ask the model and read the report, the errors and the "
    "labelled posts; there is no password."
)


@verb(*RUN_SOURCES, "device")
def serve(
    call: Call,
    run: Annotated[str, typer.Option(help=RUN_OR_HUB_HELP, autocompletion=complete_run)],
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 7860,
    max_mb: Annotated[float, typer.Option(min=0.01, max=64, help="Largest picture, in MB.")] = 10,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Most posts that wait.")] = 64,
    decide: Decide = None,
    online: Online = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Try a run or an export in a browser, and ask it over HTTP.

    Only this machine reaches it, unless --host says otherwise. Ctrl-C ends it.

    \b
    $ mmsa serve --run best --open
    """
    with require_extra("The page", "page"):
        from mmsa_cache.page.guard import Limits
        from mmsa_cache.page.serve import Served, ServeRequest
        from mmsa_cache.page.serve import serve as serve_run

    def ready(served: Served) -> None:
        if not call.print_json(served):
            print_result(f"{served.run}: {served.url}")
            say("Ctrl-C ends it.")
        if not served.only_here:
            say(OPEN_TO_ALL)
        if open_page:
            import webbrowser

            webbrowser.open(served.url)

    limits = Limits(picture=int(max_mb * _MB), waiting=queue)
    try:
        serve_run(
            ServeRequest(run, host, port, limits, call.overrides(online=online), decide), ready
        )
    except KeyboardInterrupt:
        say("Ended.")
