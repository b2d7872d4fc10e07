"""Stage two: projections, fusion and head trained on cached features."""

from typing import TYPE_CHECKING

from mmsa_cache.lazy import lazy_exports

if TYPE_CHECKING:
    from .export.onnx_export import export_onnx as export_onnx
    from .export.onnx_inputs import onnx_inputs as onnx_inputs
    from .figures.calibration import Calibration as Calibration
    from .figures.metrics import probability_score as probability_score
    from .figures.resampling import bootstrap as bootstrap
    from .losses.losses import LOSSES as LOSSES
    from .losses.losses import build_loss as build_loss
    from .models.builder import build_model as build_model
    from .models.fusions import FUSIONS as FUSIONS
    from .models.model import MultimodalClassifier as MultimodalClassifier
    from .models.summary import summarise as summarise
    from .setting import Setting as Setting
    from .training.calibration import calibrate as calibrate
    from .training.classifier import build as build
    from .training.classifier import predict as predict
    from .training.ensemble import Blend as Blend
    from .training.ensemble import Ensemble as Ensemble
    from .training.final import Trained as Trained
    from .training.final import train as train
    from .training.task import Fit as Fit
    from .training.task import Task as Task
    from .training.trainer import fit as fit
    from .training.trainer import fit_group as fit_group

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "export_onnx": "export.onnx_export",
        "onnx_inputs": "export.onnx_inputs",
        "Calibration": "figures.calibration",
        "probability_score": "figures.metrics",
        "bootstrap": "figures.resampling",
        "build_loss": "losses.losses",
        "LOSSES": "losses.losses",
        "build_model": "models.builder",
        "FUSIONS": "models.fusions",
        "MultimodalClassifier": "models.model",
        "summarise": "models.summary",
        "Setting": "setting",
        "calibrate": "training.calibration",
        "build": "training.classifier",
        "predict": "training.classifier",
        "Blend": "training.ensemble",
        "Ensemble": "training.ensemble",
        "train": "training.final",
        "Trained": "training.final",
        "Fit": "training.task",
        "Task": "training.task",
        "fit": "training.trainer",
        "fit_group": "training.trainer",
    },
)
