"""Features for workers on the machines of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.copies import CopiedSource, node_folder
from mmsa_cache.features.source import BankSource
from mmsa_cache.files.untrusted import read_part


@dataclass(frozen=True, slots=True)
class RaySource:
    """Where an actor gets the features: from the disk of its machine."""

    copied: CopiedSource
    node: str
    """The machine that has them, by Ray's name."""

    @classmethod
    def of(cls, source: BankSource) -> RaySource:
        """The source of actors, of one that opens in this process."""
        import ray

        return cls(CopiedSource.of(source), ray.get_runtime_context().get_node_id())

    def open(self, device: str) -> FeatureBank:
        """See `BankSource.open`; what the machine lacks is fetched first."""
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            return self.copied.source.open(device)
        return self.copied.here(self._read, node_folder()).open(device)

    def _read(self, path: Path, offset: int, count: int) -> bytes:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        reading = ray.remote(read_part).options(num_cpus=0, scheduling_strategy=there)
        found: bytes = ray.get(reading.remote(path, offset, count))
        return found
