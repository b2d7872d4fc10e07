"""Stage two: projections, fusion and head trained on cached features."""

from typing import TYPE_CHECKING

from mmsa_cache.lazy import public

if TYPE_CHECKING:
    from .calibration import Calibration as Calibration
    from .calibration import calibrate as calibrate
    from .classifier import build as build
    from .classifier import predict as predict
    from .ensemble import Blend as Blend
    from .ensemble import Ensemble as Ensemble
    from .final import Trained as Trained
    from .final import train as train
    from .fusions import FUSIONS as FUSIONS
    from .losses import LOSSES as LOSSES
    from .losses import build_loss as build_loss
    from .metrics import probability_score as probability_score
    from .model import MultimodalClassifier as MultimodalClassifier
    from .model import build_model as build_model
    from .onnx_export import export_onnx as export_onnx
    from .onnx_export import onnx_inputs as onnx_inputs
    from .resampling import bootstrap as bootstrap
    from .setting import Setting as Setting
    from .summary import summarise as summarise
    from .trainer import Fit as Fit
    from .trainer import Task as Task
    from .trainer import fit as fit
    from .trainer import fit_group as fit_group

__getattr__, __all__ = public(
    __name__,
    {
        "Calibration": "calibration",
        "calibrate": "calibration",
        "Blend": "ensemble",
        "Ensemble": "ensemble",
        "Trained": "final",
        "train": "final",
        "FUSIONS": "fusions",
        "LOSSES": "losses",
        "build_loss": "losses",
        "probability_score": "metrics",
        "MultimodalClassifier": "model",
        "build_model": "model",
        "export_onnx": "onnx_export",
        "onnx_inputs": "onnx_export",
        "bootstrap": "resampling",
        "Setting": "setting",
        "summarise": "summary",
        "Fit": "trainer",
        "Task": "trainer",
        "build": "classifier",
        "fit": "trainer",
        "fit_group": "trainer",
        "predict": "classifier",
    },
)
