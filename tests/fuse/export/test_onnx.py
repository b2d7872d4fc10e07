"""The ONNX graph against PyTorch: every fusion at both levels, posts of one half, calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fuse.export import onnx_export
from fuse.export.onnx_check import generate_bank, largest_difference
from fuse.export.onnx_export import TOLERANCE, describe_inputs, export_onnx
from fuse.export.onnx_inputs import onnx_inputs
from fuse.figures.calibration import Calibration
from fuse.models.classifier import Classifier
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from fuse.setting import Setting
from fuse.training.classifier import make_model
from fuse.training.ensemble import Blend, Ensemble
from mmsa_cache.errors import ModelError, SettingsError
from mmsa_cache.features.batch import Dims

TEXT, IMAGE, CLASSES, LANDMARKS = 12, 10, 4, 9
SMALL = {"text_dim": 16, "image_dim": 16, "heads": 2, "layers": 1, "ffn": 24, "head": ""}


def dims_of(setting: Setting) -> Dims:
    pools = setting.text_pool.split("+"), setting.image_pool.split("+")
    vectors = {f"text_{p}": TEXT for p in pools[0]} | {f"image_{p}": IMAGE for p in pools[1]}
    if setting.level == "pooled":
        return Dims(TEXT * len(pools[0]), IMAGE * len(pools[1]), vectors)
    return Dims(TEXT, IMAGE, vectors)


def make_ensemble(settings: list[Setting], members: int = 1) -> tuple[Ensemble, list[Dims]]:
    """Random models whose batch norms, standardisation and landmarks are not the neutral ones."""
    torch.manual_seed(0)
    dims = [dims_of(setting) for setting in settings]
    blends = [
        Blend(setting, [_member(setting, part) for _ in range(members)], 1 / len(settings))
        for setting, part in zip(settings, dims, strict=True)
    ]
    return Ensemble(blends, Calibration(1.4, (0.0, 0.3, -0.2, 0.1), (0.0,) * 4)), dims


@torch.no_grad()
def _member(setting: Setting, dims: Dims) -> Classifier:
    model = make_model(setting, dims, CLASSES, LANDMARKS)
    for name, value in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("scale", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
        elif value.is_floating_point() and "whitening" not in name:
            value.add_(0.3 * torch.randn_like(value))
    if model.landmarks:
        drawn = {n: torch.randn(LANDMARKS, d) for n, d in dims.vectors.items() if n in model.inputs}
        model.fit_landmarks(drawn)
        model.fold()
    return model.eval()


def setting_of(fusion: str, level: str, **more: object) -> Setting:
    chosen = {**SMALL, "fusion": fusion, "level": level, **more}
    return Setting(**chosen)  # type: ignore[arg-type]


ALL = {
    "pooled": [
        setting_of("concat", "pooled", text_pool="cls+mean@1", norm="layer", beside=True, head="8"),
        setting_of(KERNEL, "pooled", text_pool="cls+mean", image_pool="mean"),
    ],
    "tokens": [
        setting_of("encoder", "tokens"),
        setting_of("concat", "tokens", grid=2, pooling="attention", beside=True),
    ],
}
"""Attention, kernels, two heads, masks, grids, vectors beside: tracing takes a second each."""
OTHERS = [
    *(setting_of(fusion, level) for fusion in FUSIONS for level in ALL),
    setting_of("late", "tokens", grid=3, pooling="first", beside=True, directions="both"),
    setting_of("attention_concat", "tokens", directions="both", beside=True),
    setting_of("concat", "pooled", modality="image", norm="none"),
    setting_of(KERNEL, "tokens", modality="text"),
]


@pytest.fixture(scope="module", params=["pooled", "tokens"])
def graph(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Ensemble, list[Dims], Path]:
    """All settings of a level as one graph; the first has two members."""
    level: str = request.param
    ensemble, dims = make_ensemble(ALL[level])
    ensemble.blends[0].members.append(_member(ALL[level][0], dims[0]))
    path = tmp_path_factory.mktemp(level) / "m.onnx"
    assert 0 < export_onnx(ensemble, dims, path, {"classes": "x"}) <= TOLERANCE
    return level, ensemble, dims, path


Graph = tuple[str, Ensemble, list[Dims], Path]


def test_the_graph_says_what_it_reads(graph: Graph) -> None:
    import onnx

    level, ensemble, dims, path = graph
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    props = {p.key: p.value for p in proto.metadata_props}
    assert props["classes"] == "x"
    inputs = describe_inputs(path)
    assert {shape[0] for shape in inputs.values()} == {"batch"}
    assert inputs["text_mean"] == ["batch", TEXT]
    if level == "tokens":
        assert inputs["text"] == ["batch", "text_tokens", TEXT]
        assert inputs["image_mask"] == ["batch", "patches"]
        assert inputs["image_grid_2"] == ["batch", 4, IMAGE]
    # The check's posts are no easy ones: probabilities differ, and some posts lack a half.
    bank = generate_bank(ensemble, dims)
    assert ensemble.predict(bank, np.arange(len(bank))).std(axis=0).min() > 0.003
    present = onnx_inputs(bank, np.arange(len(bank)), ALL[level])
    for modality in ("text", "image"):
        assert 2 < present[f"{modality}_present"].sum() < len(bank)


def test_members_are_averaged_and_calibrated(graph: Graph) -> None:
    _, ensemble, dims, path = graph
    bank = generate_bank(ensemble, dims)
    assert largest_difference(path, ensemble, bank) <= TOLERANCE
    other = Ensemble(ensemble.blends, Calibration(1.4, (0.0, 0.3, -0.2, 0.0), (0.0,) * 4))
    assert largest_difference(path, other, bank) > 100 * TOLERANCE
    other = Ensemble(ensemble.blends, Calibration(1.5, ensemble.calibration.biases, (0.0,) * 4))
    assert largest_difference(path, other, bank) > 100 * TOLERANCE
    first = ensemble.blends[0]
    fewer = [replace(first, members=first.members[:1]), *ensemble.blends[1:]]
    assert largest_difference(path, Ensemble(fewer, ensemble.calibration), bank) > 10 * TOLERANCE


def test_a_missing_half_and_padding_change_nothing(graph: Graph) -> None:
    import onnxruntime

    level, ensemble, dims, path = graph
    bank = generate_bank(ensemble, dims)
    given = onnx_inputs(bank, np.array([1, 4, 7]), ALL[level])
    assert not given["text_present"].any()
    session = onnxruntime.InferenceSession(path)
    before = session.run(None, given)[0]
    changed = {"text_mean": given["text_mean"] + 7}
    if level == "tokens":
        changed |= {"text": given["text"] + 7, "text_mask": ~given["text_mask"]}
        image, mask = given["image"], given["image_mask"]
        changed["image"] = np.concatenate([image, image[:, :2] + 3], 1)
        changed["image_mask"] = np.concatenate([mask, np.zeros((3, 2), bool)], 1)
    assert np.abs(before - session.run(None, given | changed)[0]).max() <= 1e-6


def test_a_graph_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, dims = make_ensemble([setting_of("concat", "pooled")])
    monkeypatch.setattr(onnx_export, "_SMALLEST", 0.9)  # clamps every probability in the graph
    with pytest.raises(ModelError, match=r"other probabilities than PyTorch: they differ by"):
        export_onnx(ensemble, dims, tmp_path / "m.onnx", {})


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ensemble, dims = make_ensemble([setting_of("concat", "pooled")])
    with pytest.raises(SettingsError, match=r"pip install 'mmsa\[onnx\]'"):
        export_onnx(ensemble, dims, tmp_path / "m.onnx", {})


@pytest.mark.faults
@pytest.mark.parametrize("setting", [*ALL["pooled"], *ALL["tokens"], *OTHERS])
def test_every_fusion_by_itself(setting: Setting, tmp_path: Path) -> None:
    ensemble, dims = make_ensemble([setting])
    assert export_onnx(ensemble, dims, tmp_path / "m.onnx", {}) <= TOLERANCE
