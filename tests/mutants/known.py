"""Which tests look at which file, and the faults that nothing can tell from the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Faults that change nothing."""

    what: str
    """Part of their names."""
    why: str


_MODELS = ("tests/fuse/models",)
_SEARCH = ("tests/fuse/search/test_search.py", "tests/fuse/search/test_held_out.py")
_FIGURES = ("tests/fuse/figures", "tests/fuse/training/test_calibration.py")
TESTS: dict[str, tuple[str, ...]] = {
    **{f"fuse/losses/{name}.py": ("tests/fuse/losses",) for name in ("acb", "loss", "losses")},
    **{
        f"fuse/figures/{name}.py": _FIGURES
        for name in (
            "calibration",
            "confusion",
            "intervals",
            "metrics",
            "reliability",
            "resampling",
            "study",
        )
    },
    "fuse/search/selection.py": _SEARCH,
    "fuse/search/pruning.py": _SEARCH,
    "fuse/search/picking.py": _SEARCH,
    "mmsa_cache/data/splits.py": ("tests/data", "tests/cli/test_splits.py"),
    **{
        f"fuse/models/{name}.py": _MODELS
        for name in (
            "attention",
            "attention_fusions",
            "fusion",
            "fusions",
            "head",
            "kernel",
            "linear",
            "model",
            "noise",
            "projection",
            "vector_fusions",
        )
    },
    **{
        f"mmsa_cache/store/{name}.py": ("tests/store", "tests/extract/test_rows.py")
        for name in (
            "encoder",
            "entered",
            "fingerprint",
            "identity",
            "index",
            "keys",
            "reader",
            "shard_bytes",
            "shard_file",
            "verified",
            "writer",
        )
    },
    "mmsa_cache/hashing.py": ("tests/store", "tests/extract/test_rows.py"),
    "extract/inputs/augment.py": ("tests/extract/test_augment.py", "tests/extract/test_segment.py"),
    "extract/inputs/decode.py": ("tests/extract/test_decode.py", "tests/security/test_pictures.py"),
    "extract/inputs/metadata.py": (
        "tests/extract/test_decode.py",
        "tests/security/test_pictures.py",
    ),
}

EQUIVALENT: dict[str, tuple[Known, ...]] = {}
