"""Fits the protocol of a command to its data."""

from __future__ import annotations

from mmsa_cache.console import say
from mmsa_cache.data.protocol import Protocol, val_rows
from mmsa_cache.data.splits import most_folds, outer_splits
from mmsa_cache.data.table import UNKNOWN_LABEL
from mmsa_cache.errors import DataError, SettingsError

from .samples import splits_of
from .session import Session

_ENOUGH_ROWS = 20
"""Independent rows of the rarest class per fold: with these every outer split leaves enough."""


def resolve_protocol(
    session: Session, protocol: Protocol, *, folds_given: bool = False
) -> Protocol:
    """Adapts a protocol to the data of a session.

    Where the split val judges, its number of rows is added: ``val-500``. Where the rarest class
    has too few rows, the number of folds is reduced.

    Args:
        session: The command's.
        protocol: As requested.
        folds_given: The number of folds was requested: it is kept.

    Raises:
        DataError: There is no split val, or one of its rows has no label; or there is one class.
        SettingsError: The protocol is of a split val of another size.
    """
    if len(session.classes) < 2:
        raise DataError(
            f"All labels are {session.classes[0]!r}: there is nothing to tell apart.",
            "Give data of two classes, or list them: [data] classes.",
        )
    rows = val_rows(protocol.outer)
    if rows is not None:
        protocol = _judged_by_val(session, protocol, rows)
    return protocol if folds_given else _with_fewer_folds(session, protocol)


def _with_fewer_folds(session: Session, protocol: Protocol) -> Protocol:
    labels, groups = session.samples(protocol.split).labels, session.groups(protocol.split)
    if most_folds(labels, groups) >= _ENOUGH_ROWS * protocol.folds:
        return protocol
    parts = outer_splits(protocol.outer, labels, groups, protocol.seed)
    folds = max(2, min(most_folds(labels[rows], groups[rows]) for rows, _ in parts))
    if folds >= protocol.folds:
        return protocol
    say(
        f"Note: {folds} folds in place of {protocol.folds}: the rarest class has no more "
        "independent rows to learn from."
    )
    return protocol.model_copy(update={"folds": folds})


def _judged_by_val(session: Session, protocol: Protocol, rows: int) -> Protocol:
    labels = session.samples("val").labels
    unlabelled = int((labels == UNKNOWN_LABEL).sum())
    if unlabelled:
        raise DataError(
            f"{unlabelled} of {len(labels)} rows of the split val have no label.",
            "Only a labelled split judges: label its rows, or give another --outer.",
        )
    if rows not in (0, len(labels)):
        raise SettingsError(
            f"The outer rows {protocol.outer} are not of this data: val has {len(labels)} rows.",
            "Give --outer val.",
        )
    return protocol.model_copy(update={"outer": f"val-{len(labels)}"})


def note_unused_val(session: Session, outer: str | None, protocol: Protocol) -> None:
    """Tells the user of a split val that does not judge, unless ``--outer`` was given.

    Args:
        session: The command's.
        outer: The value of ``--outer``; None where it was not given.
        protocol: The protocol that is used.
    """
    if (
        outer is None
        and protocol.judging != "val"
        and "val" in splits_of(session.settings, session.store)
    ):
        say(
            f"Note: rows of train judge ({protocol.outer}); the data has a split val, which judges "
            "with --outer val."
        )
