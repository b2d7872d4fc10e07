"""Several trackers as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mmsa_cache.console import say
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.names import unknown_name

from .trackers import TRACKERS, TrackedRun, Tracker

Scalars = dict[str, float]


class Tracking:
    """Several trackers as one. A tracker that fails is reported and dropped; the run continues."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)
        self.final: Scalars | None = None
        """Final figures; None while the run is incomplete."""

    def log(self, series: str, step: int, values: Mapping[str, object]) -> None:
        """Records the numbers among the values."""
        numbers = flatten_scalars(values)
        self._for_each(lambda tracker: tracker.log(series, step, numbers))

    def close(self) -> None:
        """Ends every record."""
        self._for_each(lambda tracker: tracker.close(self.final))

    def _for_each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # of any library: training is worth more
                del self._trackers[name]
                say(f"Tracking by {name} ended: {type(error).__name__}: {error}", style="red")


@contextmanager
def tracking(names: Sequence[str], place: TrackedRun) -> Iterator[Tracking]:
    """Opens trackers and closes them, also after an error.

    Args:
        names: Of `TRACKERS`.
        place: The run.

    Raises:
        SettingsError: One cannot begin.
    """
    whole = Tracking({name: _start(name, place) for name in dict.fromkeys(names)})
    try:
        yield whole
    finally:
        whole.close()


def _start(name: str, place: TrackedRun) -> Tracker:
    try:
        return TRACKERS[name][0](place)
    except (MmsaError, OSError):
        raise
    except Exception as error:  # of any library
        raise SettingsError(
            f"Tracking by {name} cannot begin: {type(error).__name__}: {error}",
            f"See to that, or leave out --track {name}.",
        ) from error


def check_trackers(names: Iterable[str]) -> None:
    """Checks trackers before anything runs.

    Raises:
        SettingsError: An unknown name, or its package is not installed.
    """
    from importlib.util import find_spec

    for name in names:
        if name not in TRACKERS:
            raise unknown_name("Unknown --track", name, TRACKERS)
        package = TRACKERS[name][1]
        if find_spec(package) is None:
            raise SettingsError(
                f"--track {name} needs the package {package}.", f"pip install 'mmsa[{name}]'"
            )


def flatten_scalars(values: Mapping[str, object], prefix: str = "") -> Scalars:
    """The numbers of nested mappings by path, as ``outer/per_class/NAME/f1``."""
    numbers: Scalars = {}
    for name, value in values.items():
        key = str(name).replace("/", "_")  # of a class
        if isinstance(value, Mapping):
            numbers |= flatten_scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[f"{prefix}{key}"] = float(value)
    return numbers
