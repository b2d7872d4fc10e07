"""What verbs share: their common options, how errors end them, how results are shown."""

from __future__ import annotations

import contextlib
import inspect
import json
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsa_cache.console import format_table, print_result, say
from mmsa_cache.errors import DeviceError, MmsaError

if TYPE_CHECKING:
    from mmsa_cache.config.settings import Settings

Data = Annotated[Path | None, typer.Option("--data", help="Folder with train.txt and the pairs.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; default: the cores, or one a GPU.")
]
Storage = Annotated[
    str | None, typer.Option(help="Database: postgresql://… or sqlite:///FILE.", metavar="URL")
]
Track = Annotated[
    list[str] | None, typer.Option(help="tensorboard, mlflow or wandb, beside JSON lines.")
]
_Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def _text(help: str, metavar: str | None = None) -> Any:
    return Annotated[str | None, typer.Option(help=help, metavar=metavar)]


_SETTINGS: dict[str, tuple[str, Any]] = {
    "data": ("data.root", Data),
    "encoding": ("data.encoding", _text("Codec of the text files.")),
    "allow_empty_text": (
        "data.allow_empty_text",
        Annotated[
            bool | None,
            typer.Option("--allow-empty-text", help="A row may have a picture only."),
        ],
    ),
    "cache": (
        "cache.dir",
        Annotated[Path | None, typer.Option("--cache", help="Root folder of the caches.")],
    ),
    "text_model": ("text.model", _text("Hub name, folder or all-MiniLM-L6-v2.")),
    "text_weights": ("text.weights", _text("pretrained or random.")),
    "image_model": ("image.model", _text("timm name.")),
    "image_weights": ("image.weights", _text("pretrained, FILE.safetensors or random.")),
    "joint_model": ("joint.model", _text("CLIP-like model for both sides: hub name or folder.")),
    "layer": ("text.layer", _text("Text layer: last, a number or average:K.")),
    "image_layer": ("image.layer", _text("Image layer: last, a number or average:K.")),
    "tokens": ("extract.tokens", _text("Positions kept: keep, pool:GxG or none.")),
    "variants": ("extract.variants", _text("report, a number of copies, or none.")),
    "on_bad": ("extract.on_bad", _text("Rows with a bad file: fail, or skip (set them aside).")),
    "max_bad": ("extract.max_bad", _text("Largest share set aside, as 0.01 or 1%.", "SHARE")),
    "device": ("device", Device),
    "seed": ("seed", Annotated[int | None, typer.Option(help="Seed of everything random.")]),
}
"""Options that stand for a key of ``mmsa.toml``: name → key, type."""
MODELS = (
    "text_model",
    "text_weights",
    "image_model",
    "image_weights",
    "joint_model",
    "layer",
    "image_layer",
    "tokens",
)
"""Options that say which features there are."""
ENCODERS = ("data", "encoding", "cache", *MODELS, "device")
"""Options of verbs that read or write caches."""


_SECONDS_LATER = 0.02
"""After which an interrupt that was lost comes again."""


class Call:
    """One call of a verb.

    Args:
        flags: The values of its options in `_SETTINGS`, None where not given.
        as_json: Whether ``--json`` was.
    """

    def __init__(self, flags: dict[str, Any], as_json: bool) -> None:
        self.flags = flags
        self.as_json = as_json

    def settings(self, **changes: Any) -> Settings:
        """The settings that its flags, the environment and the config file lead to.

        Args:
            changes: Flags that the verb sets itself.
        """
        from mmsa_cache.config.settings import load_settings

        flags = self.flags | changes
        return load_settings({_SETTINGS[name][0]: value for name, value in flags.items()})

    def printed(self, record: Any) -> bool:
        """Prints a result as JSON, if that is asked for; tells whether it was."""
        if self.as_json:
            print_result(json.dumps(record, indent=1))
        return self.as_json

    def table(self, records: list[dict[str, Any]], columns: list[str]) -> None:
        """Shows records, as JSON or as a table of some of their columns."""
        if not self.printed(records):
            show_table(records, columns)

    def figures(self, record: dict[str, Any]) -> None:
        """Shows a record, as JSON or a line a key."""
        if not self.printed(record):
            rows = [{"figure": key, "value": value} for key, value in record.items()]
            show_table(rows, ["figure", "value"])


def verb(*shared: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function that takes a `Call` first a verb: what it raises ends the command in words.

    Args:
        shared: Names of `_SETTINGS` that it has as options, beside its own parameters, ``--json``
            and ``--debug``.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        options: list[tuple[str, Any, Any]] = [(name, None, _SETTINGS[name][1]) for name in shared]
        options += [("as_json", False, _Json), ("debug", False, _Debug)]
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for name, default, kind in options
        ]

        def run(**values: Any) -> None:
            call = Call({name: values.pop(name) for name in shared}, values.pop("as_json"))
            with _ends_in_words(values.pop("debug")):
                _check_packages()
                function(call, **values)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        # Typer reads a function's parameters from these.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


@contextlib.contextmanager
def _ends_in_words(debug: bool) -> Iterator[None]:
    """Turns mmsa's own errors, and what the system refuses, into a message and an exit code."""
    try:
        with _terminated_is_interrupted():
            yield
    except (MmsaError, OSError, MemoryError) as error:
        if debug:
            raise
        known = error if isinstance(error, MmsaError) else DeviceError(*_refused(error))
        say(f"error: {known}", style="red")
        raise typer.Exit(known.exit_code) from None
    except KeyboardInterrupt:
        say("Stopped. What was finished stays; the same command goes on from there.")
        raise typer.Exit(130) from None


def _refused(error: OSError | MemoryError) -> tuple[str, str]:
    """Message and hint for what the system refused."""
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory.",
            "Lower batch_size, --workers, or close other programs.",
        )
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}",
        "Mend the disk, make room or change the rights; the same command goes on.",
    )


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: in order, and resumable. Neither is lost."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timed = hasattr(signal, "setitimer")  # not on Windows
    numbers = (signal.SIGTERM, signal.SIGALRM) if timed else (signal.SIGTERM,)
    before = [signal.signal(number, interrupt) for number in numbers]
    told = sys.unraisablehook

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if timed and issubclass(lost.exc_type, KeyboardInterrupt):
            # It came within a finalizer, out of which nothing can be raised: it comes again.
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_LATER)
        else:
            told(lost)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = told
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _check_packages() -> None:
    """``extract`` and ``fuse`` are generic names: another package of that name may come first."""
    import importlib.util

    here = Path(__file__).resolve().parents[2]
    for name in ("extract", "fuse"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != here:
            found = spec.origin if spec else "nothing"
            raise MmsaError(
                f"The package {name!r} beside mmsa_cache is expected, Python finds {found}.",
                f"Rename or uninstall the other {name!r}, or leave the folder that holds it.",
            )


def say_notes(record: dict[str, Any]) -> None:
    """Says what a reader of a record's figures must know."""
    for note in record["notes"]:
        say(f"Note: {note}.")


def show_table(records: list[dict[str, Any]], columns: list[str]) -> None:
    """Prints some columns of records."""
    cells = [[_cell(record[column]) for column in columns] for record in records]
    print_result(format_table(columns, cells))


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_cell, value))})"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
