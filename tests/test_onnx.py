"""The ONNX graph against PyTorch: every fusion at both levels, posts of one half, calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fuse import onnx_export
from fuse.calibration import Calibration
from fuse.ensemble import Blend, Ensemble
from fuse.fusions import FUSIONS
from fuse.kernel import KERNEL, KernelClassifier
from fuse.onnx_export import TOLERANCE, check_bank, difference, export_onnx, onnx_inputs
from fuse.setting import Setting
from fuse.trainer import Classifier, make_model
from mmsa_cache.bank import Dims
from mmsa_cache.errors import ModelError, SettingsError

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
        Blend(setting, [_member(setting, part) for _ in range(members)])
        for setting, part in zip(settings, dims, strict=True)
    ]
    return Ensemble(blends, Calibration(1.4, (0.0, 0.3, -0.2, 0.1))), dims


@torch.no_grad()
def _member(setting: Setting, dims: Dims) -> Classifier:
    model = make_model(setting, dims, CLASSES, LANDMARKS)
    for name, value in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("scale", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
        elif value.is_floating_point() and "whitening" not in name:
            value.add_(0.3 * torch.randn_like(value))
    if isinstance(model, KernelClassifier):
        drawn = {n: torch.randn(LANDMARKS, d) for n, d in dims.vectors.items() if n in model.inputs}
        model.fit_landmarks(drawn)
        model.fold()
    return model.eval()


def setting_of(fusion: str, level: str, **more: object) -> Setting:
    chosen = {**SMALL, "fusion": fusion, "level": level, **more}
    return Setting(**chosen)  # type: ignore[arg-type]


ALL = {
    "pooled": [
        *(setting_of(fusion, "pooled") for fusion in FUSIONS),
        setting_of("concat", "pooled", text_pool="cls+mean@1", norm="layer", beside=True, head="8"),
        setting_of("concat", "pooled", modality="image", norm="none"),
        setting_of(KERNEL, "pooled", text_pool="cls+mean", image_pool="mean"),
    ],
    "tokens": [
        *(setting_of(fusion, "tokens") for fusion in FUSIONS),
        setting_of(
            "attention_concat",
            "tokens",
            grid=2,
            pooling="attention",
            beside=True,
            directions="both",
        ),
        setting_of("late", "tokens", grid=3, pooling="first", beside=True, head="8"),
        setting_of(KERNEL, "tokens", modality="text"),
    ],
}


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_every_fusion_in_one_ensemble(level: str, tmp_path: Path) -> None:
    import onnx

    ensemble, dims = make_ensemble(ALL[level])
    worst = export_onnx(ensemble, dims, tmp_path / "m.onnx", {"classes": "x"})
    assert 0 < worst <= TOLERANCE
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    props = {p.key: p.value for p in proto.metadata_props}
    assert props["classes"] == "x"
    names = [i.name for i in proto.graph.input]
    assert {"text_present", "image_present", "text_mean"} <= set(names)
    assert ("image_grid_3" in names) == ("text_mask" in names) == (level == "tokens")
    batch = {i.type.tensor_type.shape.dim[0].dim_param for i in proto.graph.input}
    assert batch == {"batch"}, "the batch is not free"
    # The check's posts are no easy ones: probabilities differ, halves count.
    bank = check_bank(ensemble, dims)
    found = ensemble.predict(bank, np.arange(len(bank)))
    assert found.std(axis=0).min() > 0.003
    assert {"text": (bank._text_rows < 0).any(), "image": (bank._image_rows < 0).any()} == {
        "text": True,
        "image": True,
    }


def test_members_are_averaged_and_calibrated(tmp_path: Path) -> None:
    settings = [setting_of("gated", "pooled"), setting_of("concat", "pooled")]
    ensemble, dims = make_ensemble(settings, members=2)
    export_onnx(ensemble, dims, tmp_path / "m.onnx", {})
    bank = check_bank(ensemble, dims)
    assert difference(tmp_path / "m.onnx", ensemble, bank) <= TOLERANCE
    other = Ensemble(ensemble.blends, Calibration(1.4, (0.0, 0.3, -0.2, 0.0)))
    assert difference(tmp_path / "m.onnx", other, bank) > 100 * TOLERANCE
    fewer = Ensemble([*ensemble.blends[:1], Blend(settings[1], ensemble.blends[1].members[:1])],
                     ensemble.calibration)  # fmt: skip
    assert difference(tmp_path / "m.onnx", fewer, bank) > 100 * TOLERANCE


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


def test_a_masked_half_changes_nothing(tmp_path: Path) -> None:
    import onnxruntime

    ensemble, dims = make_ensemble([setting_of("attention_combine", "tokens")])
    export_onnx(ensemble, dims, tmp_path / "m.onnx", {})
    bank = check_bank(ensemble, dims)
    given = onnx_inputs(bank, np.array([1, 4, 7]), [b.setting for b in ensemble.blends])
    assert not given["text_present"].any()
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    before = session.run(None, given)[0]
    absent = {"text": given["text"] + 7, "text_mask": ~given["text_mask"]}
    after = session.run(None, given | absent)[0]
    assert np.abs(before - after).max() <= 1e-6
    longer = np.concatenate([given["image"], given["image"][:, :2] + 3], 1)
    mask = np.concatenate([given["image_mask"], np.zeros((3, 2), bool)], 1)
    padded = session.run(None, given | {"image": longer, "image_mask": mask})[0]
    assert np.abs(before - padded).max() <= 1e-6


@pytest.mark.faults
@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("place", range(len(ALL["pooled"])))
def test_every_fusion_by_itself(level: str, place: int, tmp_path: Path) -> None:
    ensemble, dims = make_ensemble([ALL[level][place]])
    assert export_onnx(ensemble, dims, tmp_path / "m.onnx", {}) <= TOLERANCE
