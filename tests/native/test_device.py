"""The device that models run on."""

from __future__ import annotations

import pytest
import torch

from mmsa_cache.native import device


@pytest.mark.parametrize(("free", "given_back"), [(19, True), (20, False), (80, False)])
def test_memory_of_a_gpu_is_given_back_where_little_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, given_back: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda of: (free, 80))
    monkeypatch.setattr(device, "free_memory", lambda of: calls.append(str(of)))
    device.release_spare_memory(torch.device("cuda", 0))
    assert calls == (["cuda:0"] if given_back else [])
