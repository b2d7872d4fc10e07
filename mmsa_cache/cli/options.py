"""Options that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mmsa_cache.files.paths import shipped_studies

Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder, one table, or hf://datasets/NAME.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes; default: the cores, or 1 a GPU, 4 under MPS."),
]
Engine = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(help="What runs the workers: processes here (local), or a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster, HOST:PORT; default (auto): RAY_ADDRESS, one of yours here, or a new "
        "one for this command."
    ),
]
Track = Annotated[
    list[str] | None, typer.Option(help="tensorboard, mlflow or wandb, beside JSON lines.")
]
Decide = Annotated[
    Literal["accuracy", "macro_f1"] | None,
    typer.Option(
        help="Decision rule: the likeliest class, or with offsets for macro-F1; default: the run's."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
Online = Annotated[
    bool, typer.Option("--online", help="Fetch the model and encoders by their hub names.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and what it takes; do nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show results and errors only: no notes, no progress.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


RUN_HELP = "Name or folder of a run; latest, or best by its inner rows."
RUN_OR_HUB_HELP = f"{RUN_HELP} Or hf://USER/REPO."


def complete_run(start: str) -> list[str]:
    """Names of runs, for the shell's completion."""
    names = (path.parent.name for path in (_project() / "runs").glob("[!.]*/config.json"))
    return [name for name in ("latest", "best", *sorted(names)) if name.startswith(start)]


def complete_study(start: str) -> list[str]:
    """Names of study files here, and of those that come with mmsa."""
    folders = (_project() / "studies", shipped_studies())
    names = {path.stem for folder in folders for path in folder.glob("*.toml")}
    return [name for name in ("best", *sorted(names)) if name.startswith(start)]


def _project() -> Path:
    from mmsa_cache.config.project import find_project

    return find_project(Path.cwd())


def _text(help: str, metavar: str | None = None) -> Any:
    return Annotated[str | None, typer.Option(help=help, metavar=metavar)]


SETTINGS: dict[str, tuple[str, Any]] = {
    "data": ("data.root", Data),
    "encoding": ("data.encoding", _text("Codec of the text files.")),
    "column": (
        "data.columns",
        Annotated[
            list[str] | None,
            typer.Option(
                "--column", help="A table's column, as text=tweet; repeated.", metavar="ROLE=COLUMN"
            ),
        ],
    ),
    "allow_empty_text": (
        "data.allow_empty_text",
        Annotated[
            bool | None,
            typer.Option("--allow-empty-text", help="Encode empty texts too."),
        ],
    ),
    "missing": (
        "data.missing",
        _text("Posts without a picture or without a text: refuse, or allow."),
    ),
    "rehash": (
        "data.rehash",
        Annotated[
            bool | None,
            typer.Option("--rehash", help="Read unchanged files of the data again too."),
        ],
    ),
    "cache": (
        "cache.dir",
        Annotated[Path | None, typer.Option("--cache", help="Root folder of the caches.")],
    ),
    "text_model": ("text.model", _text("Hub name, folder, all-MiniLM-L6-v2 or vader.")),
    "text_weights": ("text.weights", _text("pretrained or random.")),
    "image_model": ("image.model", _text("timm name.")),
    "image_weights": ("image.weights", _text("pretrained, FILE.safetensors or random.")),
    "joint_model": ("joint.model", _text("CLIP-like model for both sides: hub name or folder.")),
    "layer": ("text.layer", _text("Text layer: last, a number or average:K.")),
    "image_layer": ("image.layer", _text("Image layer: last, a number or average:K.")),
    "tokens": ("extract.tokens", _text("Positions kept: keep, pool:GxG or none.")),
    "lexicon": ("text.lexicon", _text("Sentiment lexicon beside: auto, vader or none.")),
    "variants": ("extract.variants", _text("report, a number of copies, or none.")),
    "compile": (
        "extract.compile",
        Annotated[
            bool | None,
            typer.Option(
                "--compile/--no-compile", help="Compile the models' blocks first, on a GPU."
            ),
        ],
    ),
    "on_bad": ("extract.on_bad", _text("Rows with a bad file: fail, or skip (set them aside).")),
    "max_bad": ("extract.max_bad", _text("Largest share set aside, as 0.01 or 1%.", "SHARE")),
    "allow_outside": (
        "allow_outside",
        Annotated[
            bool | None,
            typer.Option(
                "--allow-outside",
                help="Follow paths that a run or a store names out of the working folder.",
            ),
        ],
    ),
    "storage": ("storage", _text("Database: postgresql://… or sqlite:///FILE.", "URL")),
    "device": ("device", Device),
    "seed": ("seed", Annotated[int | None, typer.Option(help="Seed of everything random.")]),
}
"""Options that set a key of ``mmsa.toml``: name → key, type."""
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
"""Options of the encoders and their features."""
RUN_SOURCES = ("data", "cache", "allow_outside")
"""Of verbs that take a run: where what it names is now."""
ENCODERS = ("data", "encoding", "column", "rehash", "cache", *MODELS, "device", "allow_outside")
"""Options of verbs that read or write caches."""
