"""``mmsa bench train``: stage two, measured on the user's own caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extract.plan import plan_rows, read_rows
from fuse import bench
from mmsa_cache.config.settings import Settings
from mmsa_cache.features.source import BankSource
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.device import device_name
from mmsa_cache.native.threads import threads as computing_with

from ..extraction.readers import reader_of
from ..session.session import Session


def bench_train(settings: Settings, rounds: int, threads: int) -> dict[str, object]:
    """Measures stage two on the training split's caches; see `fuse.bench`.

    Args:
        settings: The command's settings.
        rounds: Turns that each way takes.
        threads: CPU threads of the training loops (the encoders take all).
    """
    session = Session(settings)
    bank = session.bank("train").to(session.device)
    rows = {modality: session.rows("train", modality) for modality in MODALITIES}
    names = session.classes
    reading = bench.bench_reading(BankSource.of(bank, rows), rounds)
    with computing_with(threads):
        epochs = bench.bench_epochs(bank, names, rounds)
        folds = bench.bench_folds(bank, names, rounds)
    in_loop = bench.bench_encoders_in_loop(_encode_now(session), bank, names, rounds)
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


def _encode_now(session: Session) -> Callable[[Sequence[int]], None]:
    """Reads and encodes samples of the training split, as stage one does, in one thread."""
    samples = session.samples("train")
    parts = [
        (
            session.load_encoder(modality),
            reader_of(session.encoder(modality), session.settings.seed),
            plan_rows(samples, {}, "none", modality),
        )
        for modality in MODALITIES
    ]

    def encode(indices: Sequence[int]) -> None:
        for encoder, reader, plan in parts:
            rows = [plan[place] for place in plan.wanted.table[indices, 0].tolist() if place >= 0]
            encoder.encode(read_rows(rows, reader, encoder).inputs)

    return encode
