"""Which database holds the studies."""

from __future__ import annotations

from fuse.search.address import Address, address_of
from fuse.search.database import DATABASE
from fuse.search.study import StudyConfig
from fuse.search.study_file import find_study, read_study
from mmsa_cache.config.settings import Settings

from ..session.protocols import resolve_protocol
from ..session.session import Session


def studies_database(settings: Settings) -> Address:
    """The database that is set, else the working folder's own.

    Raises:
        SettingsError: What is set is no address.
    """
    storage = settings.storage
    return address_of(DATABASE if storage is None else storage.get_secret_value())


def study_of_file(session: Session, name: str) -> StudyConfig:
    """The study of a file, for the features and the seed of a session.

    Raises:
        SettingsError: There is none of this name, or it is wrong.
    """
    return read_study(find_study(name), session.settings.seed).resolved(session.pools)


def study_of(session: Session, name: str, outer: str | None = None) -> StudyConfig:
    """The study of a file, for the rows, the features and the seed of a session.

    Args:
        session: The command's.
        name: Of the file.
        outer: Other rows that judge its choice, see `StudyConfig.of_part`; None: as the file says.

    Raises:
        SettingsError: There is none of this name, or it is wrong.
        DataError: The split val judges, and cannot.
    """
    study = study_of_file(session, name)
    if outer not in (None, study.protocol.outer):
        study = study.of_part(outer)
    return study.model_copy(update={"protocol": resolve_protocol(session, study.protocol)})
