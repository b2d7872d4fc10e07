"""Finds studies: their database and their files."""

from __future__ import annotations

from fuse.search.address import Address, parse_address
from fuse.search.database import DATABASE
from fuse.search.study import StudyConfig
from fuse.search.study_file import find_study, read_study
from mmsa_cache.config.settings import Settings

from ..session.protocols import resolve_protocol
from ..session.session import Session


def studies_database(settings: Settings) -> Address:
    """The database of studies: the one that is set, else that of the working folder.

    Raises:
        SettingsError: The setting is not an address.
    """
    storage = settings.storage
    return parse_address(DATABASE if storage is None else storage.get_secret_value())


def read_study_file(session: Session, name: str) -> StudyConfig:
    """Reads a study file for the features and the seed of a session.

    Raises:
        SettingsError: There is no such study, or its file is wrong.
    """
    return read_study(find_study(name), session.settings.seed).resolved(session.pools)


def load_study(session: Session, name: str, outer: str | None = None) -> StudyConfig:
    """`read_study_file`, with its protocol adapted to the rows of the session.

    Args:
        session: The command's.
        name: Name of the file.
        outer: Rows that judge its choice, see `StudyConfig.with_outer`; default: those of the file.

    Raises:
        SettingsError: There is no such study, or its file is wrong.
        DataError: The split val is to judge and cannot.
    """
    study = read_study_file(session, name)
    if outer not in (None, study.protocol.outer):
        study = study.with_outer(outer)
    return study.model_copy(update={"protocol": resolve_protocol(session, study.protocol)})
