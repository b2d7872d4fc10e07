"""``mmsa bench train``: the speed of stage two on the user's cached features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extract.plan import plan_rows, read_rows
from fuse import bench
from mmsa_cache.config.settings import Settings
from mmsa_cache.features.source import BankSource
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.device import device_name
from mmsa_cache.native.threads import threads as compute_threads

from ..extraction.readers import reader_of
from ..session.session import Session


def bench_train(settings: Settings, rounds: int, threads: int) -> dict[str, object]:
    """Measures stage two on the training split's caches; see `fuse.bench`.

    Args:
        settings: The command's settings.
        rounds: Rounds of each way.
        threads: CPU threads of the training loops (the encoders take all).
    """
    session = Session(settings)
    bank = session.bank("train").to(session.device)
    rows = {modality: session.rows("train", modality) for modality in MODALITIES}
    names = session.classes
    reading = bench.bench_reading(BankSource.of(bank, rows), rounds)
    with compute_threads(threads):
        epochs = bench.bench_epochs(bank, names, rounds)
        folds = bench.bench_folds(bank, names, rounds)
    in_loop = bench.bench_encoders_in_loop(_make_encode(session), bank, names, rounds)
    return {
        **reading,
        **epochs,
        **folds,
        "encoders_in_loop_batch_seconds": in_loop,
        "ratio_encoders_in_loop": in_loop * epochs["batches"] / epochs["epoch_seconds"],
        "threads": threads,
        "rounds": rounds,
        "encoders": session.encoder_labels(),
        "notes": session.notes(),
        "device": device_name(session.device),
    }


def _make_encode(session: Session) -> Callable[[Sequence[int]], None]:
    """A function that reads and encodes training samples as stage one does, in one thread."""
    samples = session.samples("train")
    stages = [
        (
            session.load_encoder(modality),
            reader_of(session.encoder(modality), session.settings.seed),
            plan_rows(samples, {}, "none", modality),
        )
        for modality in MODALITIES
    ]

    def encode(indices: Sequence[int]) -> None:
        for encoder, reader, plan in stages:
            rows = [plan[row] for row in plan.sample_rows.table[indices, 0].tolist() if row >= 0]
            encoder.encode(read_rows(rows, reader, encoder).inputs)

    return encode
