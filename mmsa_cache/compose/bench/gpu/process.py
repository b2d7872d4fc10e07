"""The processes of preparations and steps."""

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
class StepEnvironment:
    """Arguments of a step's process."""

    sizes: Sizes
    device: str
    folder: Path
    """Folder of generated posts, encoders and features."""
    features: Path | None = None
    """Folder of packed real features, see `stores.pack`."""


def main(
    work: Callable[[StepEnvironment, MeasurementLog], None],
    environment: StepEnvironment,
    log: Path,
    output: Path,
) -> None:
    """The main function of a process. After an error, which is printed, the exit code is 1.

    Args:
        work: A preparation, or a step by `measure`.
        environment: Its arguments.
        log: File of its measurements.
        output: File of everything that it prints.
    """
    os.setsid()  # its child processes can be killed with it
    target = DISK.append(output)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ["HF_HUB_OFFLINE"] = "1"
    # The default folder is shared by all users, and its files are unpickled.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(environment.folder / "compiled")
    try:
        work(environment, MeasurementLog(log))
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _prepare_posts(environment: StepEnvironment, log: MeasurementLog) -> None:
    """Generates all posts and the encoders, and logs the machine."""
    sizes, folder = environment.sizes, environment.folder
    for what, value in machine(torch.device(environment.device)).items():
        log.add(what, value)
    posts.make_encoders(folder / "bert", sizes)
    posts.write_config(folder / "all", sizes, "posts")
    posts.make_posts(
        folder / "all" / "posts", sizes, sizes.posts, sizes.test_posts, sizes.large_posts
    )


def _prepare_few_posts(environment: StepEnvironment, log: MeasurementLog) -> None:
    """Generates the few posts."""
    sizes, folder = environment.sizes, environment.folder / "few"
    posts.write_config(folder, sizes, "posts")
    count = sizes.few_posts + sizes.test_posts
    posts.make_posts(folder / "posts", sizes, count, sizes.test_posts, 0)


def _prepare_texts(environment: StepEnvironment, log: MeasurementLog) -> None:
    """Generates text features, and unpacks the real ones, if given."""
    generated = environment.folder / "generated"
    stores.generate_features(generated, environment.sizes, "text")
    stores.generate_table(generated, environment.sizes)
    if environment.features is not None:
        stores.unpack(environment.features, environment.folder / "real")


def _prepare_pictures(environment: StepEnvironment, log: MeasurementLog) -> None:
    """Generates picture features."""
    stores.generate_features(environment.folder / "generated", environment.sizes, "image")


PREPARATIONS: dict[str, Callable[[StepEnvironment, MeasurementLog], None]] = {
    "posts": _prepare_posts,
    "few posts": _prepare_few_posts,
    "features of texts": _prepare_texts,
    "features of pictures": _prepare_pictures,
}
"""What the steps need, by name; preparations run in parallel."""


def measure(
    run: Callable[[Bench], None], environment: StepEnvironment, log: MeasurementLog
) -> None:
    """Runs a step on the prepared folder."""
    folder = environment.folder
    real = folder / "real"
    run(
        Bench(
            environment.sizes,
            torch.device(environment.device),
            folder,
            stores.BenchStore.open(folder / "generated"),
            stores.BenchStore.open(real) if real.is_dir() else None,
            log,
        )
    )
