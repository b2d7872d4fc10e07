"""``mmsa.open``: all that stage two works on."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.compose.session import Session


def open(
    cache: str | Path | None = None, *, data: str | Path | None = None, **settings: object
) -> Session:
    """Opens the data, the encoders and the features of a folder.

    Args:
        cache: The store that ``mmsa extract`` wrote; default: that of ``mmsa.toml``, or ``cache``.
        data: Folder or table of the posts; default: as ``mmsa.toml`` or the store says.
        settings: Other settings by the names of the ``MMSA_*`` variables, in lower case:
            ``text_model``, ``image_model``, ``data_encoding``, ``device``, ``seed``, ``storage``.

    Raises:
        SettingsError: With every setting that cannot be used.
        CacheNotFoundError: Nothing was extracted there.
    """
    raise NotImplementedError


def extract(
    cache: str | Path | None = None,
    *,
    data: str | Path | None = None,
    split: str = "all",
    encoders: str = "default",
    workers: int | None = None,
    **settings: object,
) -> Session:
    """Runs the frozen encoders over what is not in the store yet, and opens it.

    Args:
        cache: See `open`; it need not exist.
        data: See `open`.
        split: ``train``, ``val``, ``test`` or ``all``.
        encoders: Names of ``[encoders]`` in ``mmsa.toml``, joined by commas, or ``all``.
        workers: Worker processes; default: this process does the work.
        settings: See `open`.

    Raises:
        MmsaError: As the data, the encoders and the store raise.
    """
    raise NotImplementedError
