"""What identifies the features and labels that a command works on."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.errors import MmsaError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, OWN_PAIR, EncoderPair
from mmsa_cache.store.identity import Origin

from .session import Session


def origin_of(session: Session, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> Origin:
    """What identifies the features of the training split and its labels."""
    folders = {
        modality: {name: session.folder("train", modality, name).name for name in found}
        for modality, found in session.identities(pairs).items()
    }
    named = {
        modality: found[DEFAULT_ENCODER]
        if [*found] == [DEFAULT_ENCODER]
        else dict(sorted(found.items()))
        for modality, found in folders.items()
    }
    return _origin(session, named["text"], named["image"])


def origin_of_all(session: Session) -> Origin:
    """`origin_of`, of every encoder that the settings or the store name."""
    found: dict[str, dict[str, str]] = {modality: {} for modality in MODALITIES}
    for modality in MODALITIES:
        names = [name for e in session.store.encoders(modality) for name in e.names]
        for name in dict.fromkeys([*session.settings.encoder_names(modality), *names]):
            try:
                found[modality][name] = session.folder("train", modality, name).name
            except MmsaError:
                if name == DEFAULT_ENCODER:
                    raise
                # A study that uses it does not match.
    return _origin(session, found["text"], found["image"])


def _origin(session: Session, text: str | dict[str, str], image: str | dict[str, str]) -> Origin:
    stored = session.store.split("train")
    digest = session.samples("train").digest(stored[0].copies if stored else {})
    return Origin(text=text, image=image, classes=session.classes, data=digest)
