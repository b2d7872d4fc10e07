"""``mmsa train --summary``."""

from __future__ import annotations

from fuse.models.parts import ModelPart
from fuse.models.summary import summarise
from fuse.training.classifier import input_dims, make_model

from ..session.session import Session
from .choose import choose_settings
from .request import TrainRequest


def summary(session: Session, request: TrainRequest) -> list[ModelPart]:
    """The parts of the models that a request would train: shapes and parameters."""
    choice = choose_settings(request, session)
    split = request.protocol(choice.protocol, session).split
    bank = session.bank(split, [setting.encoders for setting in choice.settings])
    return [
        part
        for setting in choice.settings
        for part in summarise(make_model(setting, input_dims(bank, setting), len(session.classes)))
    ]
