"""Compares the data and encoders on this machine with those that a store was made from."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import StaleCacheError
from mmsa_cache.store.encoder import StoredEncoder

from .encoders import resolve_local_encoder
from .path_policy import PathPolicy


class Checks:
    """Records what was compared with a store, and what could not be.

    Args:
        store: The folder of the store.
        policy: Which paths of the settings may be used.
    """

    def __init__(self, store: Path, policy: PathPolicy) -> None:
        self._store = store
        self._policy = policy
        self._done: dict[str, bool] = {}
        self._checked_encoders: set[str] = set()
        self._reported: set[str] = set()

    def record(self, what: str, *, done: bool) -> None:
        """Records whether something was on this machine and compared."""
        self._done[what] = self._done.get(what, True) and done

    def report_encoder(self, modality: str, stored: StoredEncoder, *, precision: bool) -> None:
        """Tells the user once which encoder of the store is used.

        Args:
            modality: ``text`` or ``image``.
            stored: The encoder.
            precision: Whether its precision and device are named too.
        """
        fields = stored.identity.fields
        details = f" ({fields.get('compute')}, {fields.get('device')})" if precision else ""
        line = f"{modality} encoder: {stored.identity.label}{details}, as in {self._store}."
        if line not in self._reported:
            self._reported.add(line)
            say(line)

    def check_encoder(self, modality: str, stored: StoredEncoder, settings: Settings) -> None:
        """Compares an encoder of the store with the one on this machine, if there is one.

        Args:
            modality: ``text`` or ``image``.
            stored: The encoder of the store.
            settings: Lead to the encoder on this machine.

        Raises:
            StaleCacheError: They differ; names the fields.
        """
        if stored.fingerprint in self._checked_encoders or stored.identity.imported:
            return
        spec = resolve_local_encoder(settings, modality, self._policy)
        changed = [] if spec is None else spec.identity.changes_since(stored.identity)
        if changed:
            raise StaleCacheError(
                f"The {modality} encoder at hand is not the one of {self._store}.",
                "Restore its files, or run mmsa extract.",
                changed,
            )
        self._checked_encoders.add(stored.fingerprint)
        self.record(f"the {modality} encoder {stored.identity.label}", done=spec is not None)

    def report_unchecked(self) -> None:
        """Tells the user once what could not be compared."""
        unchecked = [
            what for what, done in self._done.items() if not done and what not in self._reported
        ]
        self._reported.update(unchecked)
        if unchecked:
            names = ", ".join(unchecked)
            say(f"Note: features alone are used; not at hand and not checked: {names}.")
