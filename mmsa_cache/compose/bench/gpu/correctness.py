"""Step 1: compares results of GPU and CPU, and of interrupted and uninterrupted work."""

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

from ..extract import spread_samples
from .bench import CLASSES, CPU, Bench, fold_tasks, max_difference

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
"""Setting for comparing devices: small, in float32."""
PROBABILITY_TOLERANCE = 1e-3
"""Of the same model on GPU and CPU, in float32."""
LOSS_TOLERANCE = 1e-3
"""Of an epoch's loss on GPU and CPU, relative."""
STACK_TOLERANCE = 1e-3
"""Of the probabilities of members trained as a stack and one by one."""


def run(bench: Bench) -> None:
    """Makes all comparisons."""
    small = bench.sizes.small_samples
    cpu_bank, bank = bench.bank(CPU, small), bench.bank(bench.device, small)
    compare_stacks(bench, bank)
    with bench.log.attempt("training resumed after an interruption"):
        max_diff = resume_training(bank, bench.folder / "checkpoints")
        what = "training resumed after an interruption: |Δp| to an unbroken one"
        bench.log.add(what, max_diff, at_most=0.0)
    compare_fusions(bench, cpu_bank, bank)
    with bench.log.attempt("pictures to predictions by the commands"):
        compare_commands(bench)
    with bench.log.attempt("extraction resumed after an interruption"):
        same = resume_extraction(bench)
        wanted = "the rows of an unbroken one, byte for byte"
        bench.log.check("extraction resumed after an interruption", same, wanted)
    compare_losses(bench, cpu_bank, bank)
    compare_features(bench)


def compare_features(bench: Bench) -> None:
    """Compares features of the same posts on both devices and in both precisions."""
    posts = spread_samples(bench.samples(), bench.sizes.compared_rows)
    readers = bench.readers()
    for name, spec in bench.specs("float32").items():
        with bench.log.attempt(f"{name} features"):
            rows, size = bench.rows(name, posts), bench.sizes.batch_size
            exact = encode_rows(rows, readers[name], spec.load(CPU), CPU, size)
            for compute in ("float32", "float16"):
                encoder = spec.computed_in(compute).load(bench.device)
                shard = encode_rows(rows, readers[name], encoder, bench.device, size)
                differences = difference(exact, shard)
                kind = f"{name} features, {compute} here against float32 on the CPU"
                bench.log.add(f"{kind}: largest |Δ|", differences["largest_absolute"])
                bench.log.add(f"{kind}: mean |Δ|", differences["mean_absolute"])
                bench.log.add(f"{kind}: lowest cosine of pools", differences["lowest_cosine"])


def compare_fusions(bench: Bench, cpu_bank: FeatureBank, bank: FeatureBank) -> None:
    """Trains every fusion at both levels on the device; compares predictions of both devices."""
    rows = np.arange(len(bank))
    for level in ("pooled", "tokens"):
        for fusion in (*FUSIONS, KERNEL):
            with bench.log.attempt(f"{fusion}, {level}"):
                setting = replace(SMALL, fusion=fusion, level=level)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    model = fit(setting, bank, rows, names=CLASSES, seed=1).model
                for warning in caught:  # a step could not be captured as a graph
                    bench.log.check(
                        f"{fusion}, {level}: warnings", False, "none", str(warning.message)
                    )
                on_device = predict(model, bank, rows, setting)
                on_cpu = predict(copy.deepcopy(model).to(CPU), cpu_bank, rows, setting)
                bench.log.add(
                    f"{fusion}, {level}: |Δp| between the devices",
                    max_difference(on_device, on_cpu),
                    at_most=PROBABILITY_TOLERANCE,
                )


def compare_losses(bench: Bench, cpu_bank: FeatureBank, bank: FeatureBank) -> None:
    """Compares the same training, without dropout, on both devices, for every loss."""
    rows = np.arange(len(bank))
    settings = {loss: replace(SMALL, loss=loss, dropout=0.0) for loss in LOSSES}
    for kind in STATISTICS:
        settings[f"acb, statistics {kind}"] = replace(SMALL, statistics=kind, dropout=0.0)
    for name, setting in settings.items():
        with bench.log.attempt(f"loss {name}"):
            on_device, on_cpu = (
                [e.loss for e in fit(setting, b, rows, names=CLASSES, seed=1).history]
                for b in (bank, cpu_bank)
            )
            max_diff = max(
                abs(a - b) / max(abs(b), 1e-9) for a, b in zip(on_device, on_cpu, strict=True)
            )
            what = f"loss {name}: relative difference between the devices"
            bench.log.add(what, max_diff, at_most=LOSS_TOLERANCE)


def compare_stacks(bench: Bench, bank: FeatureBank) -> None:
    """Compares members trained as one stack with the same members trained one by one."""
    rows = np.arange(len(bank))
    tasks = fold_tasks(len(bank), 3, folds=3)
    pairs: list[tuple[str, Level]] = [
        ("concat", "pooled"),
        ("encoder", "pooled"),
        ("attention", "tokens"),
    ]
    for fusion, level in pairs:
        with bench.log.attempt(f"stack of {fusion}, {level}"):
            setting = replace(SMALL, fusion=fusion, level=level)
            stack, singles = (
                fit_group(setting, bank, tasks, names=CLASSES, stacked=flag, whole_length=True)
                for flag in (True, False)
            )
            max_diff = max(
                max_difference(
                    predict(a.model, bank, rows, setting), predict(b.model, bank, rows, setting)
                )
                for a, b in zip(stack, singles, strict=True)
            )
            what = f"stack of three {fusion}, {level}: |Δp| to single members"
            bench.log.add(what, max_diff, at_most=STACK_TOLERANCE)


class _InterruptionError(Exception):
    """Stands for Ctrl-C."""


def resume_training(bank: FeatureBank, folder: Path) -> float:
    """Interrupts a training after two epochs and resumes it; max |Δp| to an uninterrupted one.

    Args:
        bank: The features.
        folder: Folder of the checkpoints.
    """
    rows = np.arange(len(bank))
    tasks = fold_tasks(len(bank), 2, folds=2)
    setting = replace(SMALL, epochs=3)

    def interrupt(record: EpochRecord) -> None:
        # At the last member, so that all have the same epoch and resume as one stack.
        if record.epoch == 2 and record.member == len(tasks):
            raise _InterruptionError

    def train(on_epoch: Callable[[EpochRecord], None], name: str) -> list[np.ndarray]:
        checkpoint = FolderCheckpoint(folder / name, seconds=0.0)
        fits = fit_group(
            setting, bank, tasks, names=CLASSES, on_epoch=on_epoch, checkpoint=checkpoint
        )
        return [predict(fitted.model, bank, rows, setting) for fitted in fits]

    with contextlib.suppress(_InterruptionError):
        train(interrupt, "resumed")
    resumed = train(lambda record: None, "resumed")
    whole = train(lambda record: None, "whole")
    return max(max_difference(a, b) for a, b in zip(resumed, whole, strict=True))


def resume_extraction(bench: Bench) -> bool:
    """Interrupts an extraction after a window and resumes it; whether the rows stay the same."""
    samples = spread_samples(bench.samples(), 4 * bench.sizes.batch_size)
    rows = {name: bench.rows(name, samples) for name in MODALITIES}
    readers, size = bench.readers(), bench.sizes.batch_size
    encoders = {n: spec.load(bench.device) for n, spec in bench.specs(bench.compute).items()}

    @contextlib.contextmanager
    def interrupt() -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            raise _InterruptionError

        yield advance

    def write(folder: Path, *, interrupted: bool) -> None:
        with contextlib.ExitStack() as claims:
            jobs = []
            for name in MODALITIES:
                writer = FeatureWriter(folder, generated_encoder(name))
                claims.enter_context(writer.claim(lambda: None))
                job = EncodingJob(rows[name], writer, reader=readers[name], encoder=encoders[name])
                if interrupted:
                    job.watch = interrupt
                jobs.append(job)
            extract(jobs, bench.device, shard_rows=size, batch_size=size)

    root = bench.folder / "extraction"
    with contextlib.suppress(_InterruptionError):
        write(root / "resumed", interrupted=True)
    write(root / "resumed", interrupted=False)
    write(root / "whole", interrupted=False)
    return all(
        _feature_bytes(root / "resumed", name, plan.sample_rows)
        == _feature_bytes(root / "whole", name, plan.sample_rows)
        for name, plan in rows.items()
    )


def _feature_bytes(root: Path, modality: str, rows: SampleRows) -> bytes:
    """The features of rows, in their order."""
    features = ModalityFeatures.open(generated_encoder(modality).folder(root), rows)
    every = torch.arange(len(rows.keys))
    tensors = (features.pooled, features.sequences(every)[0], features.lengths(every))
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def compare_commands(bench: Bench) -> None:
    """Runs ``extract``, ``train`` and ``predict`` on the device, then ``predict`` on the CPU."""
    with contextlib.chdir(bench.few):
        extract_splits(bench.settings(bench.few), "all")
        changes: dict[str, Value] = {"precision": "float32", "epochs": 3, "keep": "last"}
        request = TrainRequest(changes=changes, name="gpu", outer="grouped", folds=2)
        train_run(Session(bench.settings(bench.few)), request)
        models = [load_model("gpu", device=str(device)) for device in (bench.device, CPU)]
        on_device, on_cpu = ([p for _, p in model.predict_split("test")] for model in models)
        what = f"predict a split of {len(on_device)}: |Δp| between the devices"
        bench.log.add(what, max_difference(on_device, on_cpu), at_most=PROBABILITY_TOLERANCE)
        posts = Path("posts/pairs")
        text, picture = read_regular(posts / "0.txt", 1 << 20).decode(), posts / "0.jpg"
        pair_on_device, pair_on_cpu = (model.predict_pair(text, picture) for model in models)
        what = "predict one post, encoded now in the device's own precision: |Δp|"
        bench.log.add(what, max_difference(pair_on_device, pair_on_cpu))
