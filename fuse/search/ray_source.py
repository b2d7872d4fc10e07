"""Features for workers on the machines of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.remote_source import RemoteSource, download_folder
from mmsa_cache.features.source import BankSource
from mmsa_cache.files.untrusted import read_part


@dataclass(frozen=True, slots=True)
class RaySource:
    """Features on the disk of an actor's machine, copied there from the machine of the search."""

    copied: RemoteSource
    node: str
    """Ray's identifier of the machine of the search."""

    @classmethod
    def of(cls, source: BankSource) -> RaySource:
        """Makes a source for actors from one that opens in this process."""
        import ray

        return cls(RemoteSource.of(source), ray.get_runtime_context().get_node_id())

    def open(self, device: str) -> FeatureBank:
        """See `BankSource.open`; first copies the files that the machine lacks."""
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            return self.copied.source.open(device)
        return self.copied.here(self._read, download_folder()).open(device)

    def _read(self, path: Path, offset: int, count: int) -> bytes:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        reader = ray.remote(read_part).options(num_cpus=0, scheduling_strategy=there)
        data: bytes = ray.get(reader.remote(path, offset, count))
        return data
