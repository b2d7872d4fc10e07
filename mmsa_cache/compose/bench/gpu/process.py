"""What runs in a step's own process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mmsa_cache.files.disk import DISK

from . import posts, stores
from .bench import Bench
from .probes import machine
from .results import MeasurementLog
from .sizes import Sizes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a step's process is told."""

    sizes: Sizes
    device: str
    folder: Path
    """Where generated posts, encoders and features lie."""
    features: Path | None = None
    """Folder with packed real features, see `stores.pack`."""


def main(
    work: Callable[[Surroundings, MeasurementLog], None],
    surroundings: Surroundings,
    figures: Path,
    log: Path,
) -> None:
    """The process's main function; it ends with 1 after an error, which is printed.

    Args:
        work: What it is for: `prepare`, or a step by `measure`.
        surroundings: See there.
        figures: Where its figures go.
        log: Where everything goes that it prints.
    """
    os.setsid()  # what it starts can be ended with it
    target = DISK.append(log)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Else what is compiled is looked for, and unpickled, where any user may have put it.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(surroundings.folder / "compiled")
    try:
        work(surroundings, MeasurementLog(figures))
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def prepare(surroundings: Surroundings, figures: MeasurementLog) -> None:
    """All of `PREPARATIONS`, one after the other."""
    for work in PREPARATIONS.values():
        work(surroundings, figures)


def _prepare_posts(surroundings: Surroundings, figures: MeasurementLog) -> None:
    """Generates all posts and the encoders; keeps what machine it is."""
    sizes, folder = surroundings.sizes, surroundings.folder
    for what, value in machine(torch.device(surroundings.device)).items():
        figures.add(what, value)
    posts.make_encoders(folder / "bert", sizes)
    posts.write_config(folder / "all", sizes, "posts")
    posts.make_posts(
        folder / "all" / "posts", sizes, sizes.posts, sizes.test_posts, sizes.large_posts
    )


def _prepare_few_posts(surroundings: Surroundings, figures: MeasurementLog) -> None:
    """Generates the few posts."""
    sizes, folder = surroundings.sizes, surroundings.folder / "few"
    posts.write_config(folder, sizes, "posts")
    count = sizes.few_posts + sizes.test_posts
    posts.make_posts(folder / "posts", sizes, count, sizes.test_posts, 0)


def _prepare_texts(surroundings: Surroundings, figures: MeasurementLog) -> None:
    """Generates features of texts, and unpacks real ones where they were given."""
    generated = surroundings.folder / "generated"
    stores.generate_features(generated, surroundings.sizes, "text")
    stores.generate_table(generated, surroundings.sizes)
    if surroundings.features is not None:
        stores.unpack(surroundings.features, surroundings.folder / "real")


def _prepare_pictures(surroundings: Surroundings, figures: MeasurementLog) -> None:
    """Generates features of pictures."""
    stores.generate_features(surroundings.folder / "generated", surroundings.sizes, "image")


PREPARATIONS: dict[str, Callable[[Surroundings, MeasurementLog], None]] = {
    "posts": _prepare_posts,
    "few posts": _prepare_few_posts,
    "features of texts": _prepare_texts,
    "features of pictures": _prepare_pictures,
}
"""What must be there before the first step; each can be made beside the others."""


def measure(
    run: Callable[[Bench], None], surroundings: Surroundings, figures: MeasurementLog
) -> None:
    """Runs a step on what `prepare` made."""
    folder = surroundings.folder
    real = folder / "real"
    run(
        Bench(
            surroundings.sizes,
            torch.device(surroundings.device),
            folder,
            stores.BenchStore.open(folder / "generated"),
            stores.BenchStore.open(real) if real.is_dir() else None,
            figures,
        )
    )
