"""Step 1: whether the GPU gives what the CPU gives, and whether work can be broken off on it."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from extract.engine import extract
from extract.plan import EncodingJob
from extract.precision import difference
from extract.shards import encode_rows
from fuse.fields import Level
from fuse.figures.records import EpochRecord
from fuse.figures.study import Value
from fuse.losses.acb import STATISTICS
from fuse.losses.losses import LOSSES
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from fuse.setting import Setting
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.classifier import predict
from fuse.training.task import Task
from fuse.training.trainer import fit, fit_group
from mmsa_cache.compose.bench.generated import generated_encoder
from mmsa_cache.compose.extraction.extract import extract_splits
from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.compose.session.session import Session
from mmsa_cache.compose.train.request import TrainRequest
from mmsa_cache.compose.train.train import train as train_run
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.names import MODALITIES
from mmsa_cache.store.writer import FeatureWriter

from .bench import CLASSES, CPU, Bench, evenly, largest_difference

SMALL = Setting(
    text_dim=64,
    image_dim=64,
    layers=2,
    ffn=128,
    head="64",
    epochs=2,
    batch_size=32,
    keep="last",
    schedule="constant",
    precision="float32",
)
"""What is trained to compare devices: small, and with full precision."""
PROBABILITIES_APART = 1e-3
"""Largest |Δp| between a model on the GPU and the same model on the CPU, in float32."""
LOSSES_APART = 1e-3
"""Largest relative difference of an epoch's loss between the devices."""
STACK_APART = 1e-3
"""Largest |Δp| between members trained as a stack and one by one."""


def run(bench: Bench) -> None:
    """Compares everything; each comparison is a figure of its own."""
    small = bench.sizes.small_samples
    here, there = bench.bank(CPU, small), bench.bank(bench.device, small)
    stacked(bench, there)
    with bench.figures.attempt("training resumed after an interruption"):
        apart = resumed_training(there, bench.folder / "checkpoints")
        bench.figures.add(
            "training resumed after an interruption: |Δp| to an unbroken one", apart, at_most=0.0
        )
    fusions(bench, here, there)
    with bench.figures.attempt("pictures to predictions by the commands"):
        commands(bench)
    with bench.figures.attempt("extraction resumed after an interruption"):
        same = resumed_extraction(bench)
        wanted = "the rows of an unbroken one, byte for byte"
        bench.figures.check("extraction resumed after an interruption", same, wanted)
    losses(bench, here, there)
    features(bench)


def features(bench: Bench) -> None:
    """Features of the same posts on both devices and in both precisions."""
    posts = evenly(bench.samples(), bench.sizes.compared_rows)
    readers = bench.readers()
    for name, spec in bench.specs("float32").items():
        with bench.figures.attempt(f"{name} features"):
            rows, size = bench.rows(name, posts), bench.sizes.batch_size
            exact = encode_rows(rows, readers[name], spec.load(CPU), CPU, size)
            for compute in ("float32", "float16"):
                encoder = spec.computed_in(compute).load(bench.device)
                found = encode_rows(rows, readers[name], encoder, bench.device, size)
                apart = difference(exact, found)
                kind = f"{name} features, {compute} here against float32 on the CPU"
                bench.figures.add(f"{kind}: largest |Δ|", apart["largest_absolute"])
                bench.figures.add(f"{kind}: mean |Δ|", apart["mean_absolute"])
                bench.figures.add(f"{kind}: lowest cosine of pools", apart["lowest_cosine"])


def fusions(bench: Bench, here: FeatureBank, there: FeatureBank) -> None:
    """Every fusion at both levels: trained on the device, then asked on both devices."""
    every = np.arange(len(here))
    for level in ("pooled", "tokens"):
        for fusion in (*FUSIONS, KERNEL):
            with bench.figures.attempt(f"{fusion}, {level}"):
                setting = replace(SMALL, fusion=fusion, level=level)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    model = fit(setting, there, every, names=CLASSES, seed=1).model
                for warning in caught:  # a step that is no graph
                    bench.figures.check(
                        f"{fusion}, {level}: warnings", False, "none", str(warning.message)
                    )
                found = predict(model, there, every, setting)
                exact = predict(copy.deepcopy(model).to(CPU), here, every, setting)
                bench.figures.add(
                    f"{fusion}, {level}: |Δp| between the devices",
                    largest_difference(found, exact),
                    at_most=PROBABILITIES_APART,
                )


def losses(bench: Bench, here: FeatureBank, there: FeatureBank) -> None:
    """Every loss: the same training, without dropout, on both devices."""
    every = np.arange(len(here))
    settings = {loss: replace(SMALL, loss=loss, dropout=0.0) for loss in LOSSES}
    for kind in STATISTICS:
        settings[f"acb, statistics {kind}"] = replace(SMALL, statistics=kind, dropout=0.0)
    for name, setting in settings.items():
        with bench.figures.attempt(f"loss {name}"):
            found, exact = (
                [e.loss for e in fit(setting, bank, every, names=CLASSES, seed=1).history]
                for bank in (there, here)
            )
            apart = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(found, exact, strict=True))
            what = f"loss {name}: relative difference between the devices"
            bench.figures.add(what, apart, at_most=LOSSES_APART)


def stacked(bench: Bench, bank: FeatureBank) -> None:
    """Members trained as one stack against the same members trained one by one."""
    every = np.arange(len(bank))
    tasks = [Task(every[every % 3 != k], every[every % 3 == k], k) for k in range(3)]
    pairs: list[tuple[str, Level]] = [
        ("concat", "pooled"),
        ("encoder", "pooled"),
        ("attention", "tokens"),
    ]
    for fusion, level in pairs:
        with bench.figures.attempt(f"stack of {fusion}, {level}"):
            setting = replace(SMALL, fusion=fusion, level=level)
            together, alone = (
                fit_group(setting, bank, tasks, names=CLASSES, stacked=flag, whole_length=True)
                for flag in (True, False)
            )
            apart = max(
                largest_difference(
                    predict(a.model, bank, every, setting), predict(b.model, bank, every, setting)
                )
                for a, b in zip(together, alone, strict=True)
            )
            what = f"stack of three {fusion}, {level}: |Δp| to single members"
            bench.figures.add(what, apart, at_most=STACK_APART)


class _BrokenOffError(Exception):
    """Stands for a Ctrl-C."""


def resumed_training(bank: FeatureBank, folder: Path) -> float:
    """Trains, breaks off after the second epoch and goes on; largest |Δp| to an unbroken training.

    Args:
        bank: The features.
        folder: Where the members are kept.
    """
    every = np.arange(len(bank))
    tasks = [Task(every[every % 2 == k], every[every % 2 != k], k) for k in range(2)]
    setting = replace(SMALL, epochs=3)

    def broken(record: EpochRecord) -> None:
        # Of the last member, so that all are kept after the same epoch and go on as one stack.
        if record.epoch == 2 and record.member == len(tasks):
            raise _BrokenOffError

    def train(on_epoch: Callable[[EpochRecord], None], kept: Path) -> list[np.ndarray]:
        checkpoint = FolderCheckpoint(kept, seconds=0.0)
        fits = fit_group(
            setting, bank, tasks, names=CLASSES, on_epoch=on_epoch, checkpoint=checkpoint
        )
        return [predict(found.model, bank, every, setting) for found in fits]

    with contextlib.suppress(_BrokenOffError):
        train(broken, folder / "broken")
    resumed = train(lambda record: None, folder / "broken")
    whole = train(lambda record: None, folder / "whole")
    return max(largest_difference(a, b) for a, b in zip(resumed, whole, strict=True))


def resumed_extraction(bench: Bench) -> bool:
    """Extracts, breaks off after a window and goes on; whether the rows are an unbroken one's."""
    samples = evenly(bench.samples(), 4 * bench.sizes.batch_size)
    rows = {name: bench.rows(name, samples) for name in MODALITIES}
    readers, size = bench.readers(), bench.sizes.batch_size
    encoders = {n: spec.load(bench.device) for n, spec in bench.specs(bench.compute).items()}

    @contextlib.contextmanager
    def broken() -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            raise _BrokenOffError

        yield advance

    def write(folder: Path, *, interrupted: bool) -> None:
        with contextlib.ExitStack() as claims:
            jobs = []
            for name in MODALITIES:
                writer = FeatureWriter(folder, generated_encoder(name))
                claims.enter_context(writer.claim(lambda: None))
                job = EncodingJob(rows[name], writer, reader=readers[name], encoder=encoders[name])
                if interrupted:
                    job.watch = broken
                jobs.append(job)
            extract(jobs, bench.device, shard_rows=size, batch_size=size)

    root = bench.folder / "resumed"
    with contextlib.suppress(_BrokenOffError):
        write(root / "broken", interrupted=True)
    write(root / "broken", interrupted=False)
    write(root / "whole", interrupted=False)
    return all(
        _bytes_of(root / "broken", name, plan.wanted)
        == _bytes_of(root / "whole", name, plan.wanted)
        for name, plan in rows.items()
    )


def _bytes_of(root: Path, modality: str, rows: SampleRows) -> bytes:
    """The features of rows, in their order."""
    found = ModalityFeatures.open(generated_encoder(modality).folder(root), rows)
    every = torch.arange(len(rows.keys))
    parts = (found.pooled, found.sequences(every)[0], found.lengths(every))
    return b"".join(part.numpy().tobytes() for part in parts)


def commands(bench: Bench) -> None:
    """``extract``, ``train`` and ``predict`` on the device, then ``predict`` on the CPU."""
    with contextlib.chdir(bench.few):
        extract_splits(bench.settings(bench.few), "all")
        changes: dict[str, Value] = {"precision": "float32", "epochs": 3, "keep": "last"}
        request = TrainRequest(changes=changes, name="gpu", outer="grouped", folds=2)
        train_run(Session(bench.settings(bench.few)), request)
        found, exact = (
            load_model("gpu", device=str(device)).predict_split("test")
            for device in (bench.device, CPU)
        )
        apart = largest_difference([p for _, p in found], [p for _, p in exact])
        what = f"predict a split of {len(found)}: |Δp| between the devices"
        bench.figures.add(what, apart, at_most=PROBABILITIES_APART)
        posts = Path("posts/pairs")
        text, picture = read_regular(posts / "0.txt", 1 << 20).decode(), posts / "0.jpg"
        one, two = (
            load_model("gpu", device=str(device)).predict_pair(text, picture)
            for device in (bench.device, CPU)
        )
        what = "predict one post, encoded now in the device's own precision: |Δp|"
        bench.figures.add(what, largest_difference(one, two))
