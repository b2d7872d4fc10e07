"""Whether what is at hand is what a store was made from."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import StaleCacheError
from mmsa_cache.store.encoder import StoredEncoder

from .encoders import resolve_local_encoder
from .path_policy import PathPolicy


class Checks:
    """What was compared with a store, and what could not be.

    Args:
        store: Its folder.
        policy: Where the paths of the settings may lead.
    """

    def __init__(self, store: Path, policy: PathPolicy) -> None:
        self._store = store
        self._policy = policy
        self._done: dict[str, bool] = {}
        self._encoders: set[str] = set()
        self._said: set[str] = set()

    def add(self, what: str, *, done: bool) -> None:
        """Notes whether something was at hand and compared."""
        self._done[what] = self._done.get(what, True) and done

    def chosen(self, modality: str, stored: StoredEncoder, *, precision: bool) -> None:
        """Says once which encoder is used; its precision where the store has others too."""
        fields = stored.identity.fields
        details = f" ({fields.get('compute')}, {fields.get('device')})" if precision else ""
        what = f"{modality} encoder: {stored.identity.label}{details}, as in {self._store}."
        if what not in self._said:
            self._said.add(what)
            say(what)

    def encoder(self, modality: str, stored: StoredEncoder, settings: Settings) -> None:
        """Compares an encoder of the store with the one at hand, if there is one.

        Args:
            modality: ``text`` or ``image``.
            stored: The encoder of the store.
            settings: They lead to it.

        Raises:
            StaleCacheError: The one at hand is another one; names the fields.
        """
        if stored.fingerprint in self._encoders or stored.identity.imported:
            return
        spec = resolve_local_encoder(settings, modality, self._policy)
        changed = [] if spec is None else spec.identity.changes_since(stored.identity)
        if changed:
            raise StaleCacheError(
                f"The {modality} encoder at hand is not the one of {self._store}.",
                "Restore its files, or run mmsa extract.",
                changed,
            )
        self._encoders.add(stored.fingerprint)
        self.add(f"the {modality} encoder {stored.identity.label}", done=spec is not None)

    def say(self) -> None:
        """Says once what could not be compared."""
        left = [what for what, done in self._done.items() if not done and what not in self._said]
        self._said.update(left)
        if left:
            say(f"Note: features alone are used; not at hand and not checked: {', '.join(left)}.")
