"""Extraction where a device has no memory, or is lost, at the n-th of everything."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.crew.pieces import Piece
from extract.crew.protocol import Sealed
from extract.crew.worker import CrewWorker
from extract.encoders.image import resolve_image
from extract.encoders.options import Options
from extract.encoders.protocol import Encoded, Encoder
from extract.encoders.text import resolve_text
from extract.plan import Reader
from mmsa_cache.errors import DeviceError
from tests.support.crew import CompanySource, InCompany, plain_rows
from tests.support.extraction import CPU, NO_MEMORY, Counting, make_rows, read, run
from tests.support.local_work import work
from tests.support.rows import claimed, row_bytes
from tests.support.scarce import Scarce
from tests.support.tally import Tally

LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class Failing(Counting):
    """Has no memory for some batches, whatever their size.

    Args:
        calls: Their numbers, from 1.
        error: What is raised.
    """

    def __init__(self, calls: range, error: Exception) -> None:
        super().__init__(error=error)
        self._calls = calls

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        if len(self.tried) + 1 in self._calls:
            self.tried.append(len(batch))
            raise self.error
        return super().encode(batch)


@pytest.mark.parametrize(
    "errors", [NO_MEMORY[:1], pytest.param(NO_MEMORY, marks=pytest.mark.faults)], ids=["one", "all"]
)
@pytest.mark.parametrize("together", [1, 2, 3])
def test_the_nth_batch_has_no_memory(
    tmp_path: Path, errors: Sequence[Exception], together: int, tally: Tally
) -> None:
    rows = make_rows(tmp_path, 22)
    run(tmp_path / "whole", rows, whole := Counting())
    wanted, ended = row_bytes(tmp_path / "whole"), 0
    for kind, error in enumerate(errors):
        for at in range(1, len(whole.tried) + 1):
            root = tmp_path / f"{kind}-{at}"
            try:
                run(root, rows, Failing(range(at, at + together), error))
            except DeviceError as caught:
                ended += 1
                assert caught.message == "The device has no memory for one row at a time."  # noqa: PT017
                run(root, rows, Counting())
            assert row_bytes(root) == wanted
    times = len(errors) * len(whole.tried)
    kept = f"same bytes; {ended} times exit 5 first"
    tally(f"no memory at the n-th batch and {together - 1} after it, encoding", times, kept)


@pytest.mark.faults
def test_the_nth_operation_of_loading_has_no_memory(text_model: Path, tally: Tally) -> None:
    """A batch that is tried for the sizes is a part of loading."""
    kwargs = {"channels": [8, 8, 8, 8]}
    specs: tuple[Any, ...] = (
        resolve_text(str(text_model), "random", 16, 5, Options()),
        resolve_image(
            *("resnet10t", "random", kwargs), mean=None, std=None, size=32, fit="squash", seed=5
        ),
    )
    times = 0
    for spec in specs:
        spec.load(CPU)  # what is kept from then on
        with Scarce() as counting:
            spec.load(CPU)
        for at in range(1, counting.done + 1):
            with pytest.raises(DeviceError, match="no memory to load"), Scarce(at) as scarce:
                spec.load(CPU)
            assert scarce.done >= at
        times += counting.done
    tally("no memory at the n-th operation of loading an encoder", times, "named, exit 5")


@dataclass(frozen=True)
class LosingSource(CompanySource):
    """Whose worker loses its device once, at the n-th row or as it loads the encoder."""

    at: int = 0

    def load(self, job: int, device: torch.device) -> tuple[InCompany, Reader]:
        encoder, reader = super().load(job, device)
        if self.at == 0:
            self._lose()
        real = encoder.encode

        def encode(batch: Sequence[Tensor]) -> Encoded:
            if any(int(row[0]) == self.at for row in batch):
                self._lose()
            return real(batch)

        encoder.encode = encode  # type: ignore[method-assign]
        return encoder, reader

    def _lose(self) -> None:
        assert self.notes is not None
        try:
            os.close(os.open(self.notes / "lost", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        raise LOST


@pytest.mark.parametrize("every", [67, pytest.param(7, marks=pytest.mark.faults)])
def test_a_worker_that_loses_its_device_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, tally: Tally
) -> None:
    wanted = plain_rows(tmp_path / "plain", 200, 8, 4)
    places = range(0, 200, every)
    for at in places:
        (notes := tmp_path / f"notes-{at}").mkdir()
        job, _ = work(tmp_path / str(at), LosingSource(notes=notes, at=at))
        assert row_bytes(tmp_path / str(at)) == wanted
        assert job.computed == 200
        assert len(list(notes.iterdir())) >= 3, "no worker was replaced"
    tally(
        "a worker's device lost, loading and at the n-th row", len(places), "replaced, same bytes"
    )


def test_a_worker_remembers_from_piece_to_piece_how_many_rows_fit(tmp_path: Path) -> None:
    encoder, rows = Counting(memory=3), make_rows(tmp_path, 16)

    class Given:
        def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
            return encoder, read

    with claimed(tmp_path / "cache") as writer:
        worker = CrewWorker(Given(), [writer.sealer], CPU, 1, 8)
        for number in range(2):
            said = worker.run(Piece(number, 0, tuple(rows[8 * number : 8 * number + 8]), (8,)))
            assert isinstance(said, Sealed)
            assert said.rows == 8
    assert encoder.tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
