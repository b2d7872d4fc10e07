"""The protocol of a command, on the data that there is."""

from __future__ import annotations

from mmsa_cache.console import say
from mmsa_cache.data.protocol import Protocol, val_rows
from mmsa_cache.data.table import UNKNOWN_LABEL
from mmsa_cache.errors import DataError, SettingsError

from .samples import splits_of
from .session import Session


def divided(session: Session, protocol: Protocol) -> Protocol:
    """A protocol that says how many rows of val judge, if they do: ``val-500``.

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
    if rows is None:
        return protocol
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


def say_of_val(session: Session, outer: str | None, protocol: Protocol) -> None:
    """Says that there is a split val, where nothing was said of the rows that judge.

    Args:
        session: The command's.
        outer: What the command was given.
        protocol: What follows from it.
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
