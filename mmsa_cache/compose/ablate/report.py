"""``mmsa ablate report``: trains the cells of the report that the project reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuse.assignments import parse_assignments
from fuse.evidence import parity
from fuse.evidence.parity_picture import draw_figure
from fuse.evidence.records import ParityRecord
from fuse.evidence.report_figures import JUDGED_ROWS
from fuse.pools import resolve_value
from fuse.setting import complete
from mmsa_cache.console import say
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.results import write_result
from mmsa_cache.validation import validate

from ..extraction.crew import EngineRequest
from ..session.protocols import resolve_protocol
from ..session.session import Session
from .ablate import train_cells


@dataclass(frozen=True, slots=True)
class ParityRequest:
    """Options of ``mmsa ablate report``."""

    assignments: Sequence[str] = ()
    """``key=value`` in place of the report's settings."""
    outer: str = "report-parity"
    """As the next three, see `mmsa_cache.data.protocol.Protocol`."""
    folds: int = 1
    seeds: int = 3
    stop: str = "held-out"
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Engine and number of workers; None: see `worker_devices`."""
    out: Path | None = None
    """Markdown file of the page; figure 3 is written beside it."""


def report(session: Session, request: ParityRequest) -> ParityRecord:
    """Trains the cells of the report's tables 1 and 2 and figure 3.

    Raises:
        SettingsError: A flag is wrong.
    """
    out = request.out
    if out is not None and out.suffix != ".md":
        raise SettingsError(f"{out}: the page is Markdown.", "Give --out FILE.md.")
    assignments = parse_assignments(list(request.assignments)).items()
    values = {key: resolve_value(key, value, session.pools) for key, value in assignments}
    keys = ("outer", "folds", "seeds", "stop")
    flags = {key: getattr(request, key) for key in keys} | {"seed": session.settings.seed}
    protocol = validate(Protocol, flags, "This protocol cannot be followed.")
    protocol = resolve_protocol(session, protocol, folds_given=True)
    table = parity.report_cells(values, *_first_positions(session, complete(values).encoders))
    trained = train_cells(session, table, protocol, "accuracy", request.engine)
    ablation = trained.record
    if tuple(sorted(ablation.judged.values())) != JUDGED_ROWS:
        note = "these are not the rows of the report's figures"
        ablation = ablation.model_copy(update={"notes": [*ablation.notes, note]})
    setting = table[0].setting
    record = ParityRecord(
        ablation=ablation,
        changes=parity.loss_changes(
            table, trained.outcome, trained.labels, list(ablation.judged), trained.groups
        ),
        pools={"text": setting.text_pool, "image": setting.image_pool},
        level=setting.level,
        assignments=list(request.assignments),
    )
    name = "figure-3.svg" if out is None else out.with_suffix(".svg").name
    update = {"page": parity.render_page(record, name), "picture": draw_figure(record)}
    record = record.model_copy(update=update)
    if out is not None:
        write_result(out.with_suffix(".svg"), record.picture)
        write_result(out, record.page)
        say(f"Written: {out} and {name} beside it.")
    return record


def _first_positions(session: Session, pair: tuple[str, str]) -> tuple[str, str]:
    """Pools of the first position of text and picture, which the report's code reads."""
    bank, pools = session.bank("train", [pair]), ("cls", "first", "last")
    text, image = (
        next(pool for pool in pools if pool in side.pools) for side in (bank.text, bank.image)
    )
    return text, image
