"""Identifies the features and labels that a command works on."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.data.protocol import JOINED
from mmsa_cache.errors import MmsaError
from mmsa_cache.names import DEFAULT_ENCODER, DEFAULT_PAIR, MODALITIES, EncoderPair
from mmsa_cache.store.identity import Origin

from .session import Session


def origin_of(
    session: Session, pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,), split: str = "train"
) -> Origin:
    """Identifies the features and labels of the rows that a protocol divides.

    Args:
        session: The command's.
        pairs: Encoders whose features are read.
        split: See `mmsa_cache.data.protocol.Protocol.split`.
    """
    origins: dict[str, str | dict[str, str]] = {}
    for modality, encoders in session.identities(pairs).items():
        folders = {
            name: session.feature_folder(split, modality, name).name for name in sorted(encoders)
        }
        origins[modality] = folders[DEFAULT_ENCODER] if [*folders] == [DEFAULT_ENCODER] else folders
    val = session.samples("val").digest({}) if split == JOINED else None
    return _origin(session, origins["text"], origins["image"], val)


def origin_of_all(session: Session) -> Origin:
    """`origin_of` with every encoder that the settings or the store name, and the split val."""
    folders: dict[str, dict[str, str]] = {modality: {} for modality in MODALITIES}
    for modality in MODALITIES:
        names = [name for e in session.store.encoders(modality) for name in e.names]
        for name in dict.fromkeys([*session.settings.encoder_names(modality), *names]):
            try:
                folders[modality][name] = session.feature_folder("train", modality, name).name
            except MmsaError:
                if name == DEFAULT_ENCODER:
                    raise
                # A study that uses it does not match.
    val = session.store.split("val")
    return _origin(session, folders["text"], folders["image"], val[1].digest({}) if val else None)


def _origin(
    session: Session, text: str | dict[str, str], image: str | dict[str, str], val: str | None
) -> Origin:
    stored = session.store.split("train")
    digest = session.samples("train").digest(stored[0].copies if stored else {})
    return Origin(text=text, image=image, classes=session.classes, data=digest, val=val)
