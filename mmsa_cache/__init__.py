"""What both stages share: samples, splits, settings, the feature cache and the command line."""

import sys

if sys.argv[:1] == ["-m"]:  # ``python -m mmsa_cache`` is looking for the module that it runs
    from mmsa_cache.module_path import drop_working_folder

    drop_working_folder()

from typing import TYPE_CHECKING

from mmsa_cache.lazy import lazy_exports
from mmsa_cache.version import __version__ as __version__

if TYPE_CHECKING:
    from mmsa_cache.api.checking import check as check
    from mmsa_cache.api.classifier import FusionClassifier as FusionClassifier
    from mmsa_cache.api.opening import extract as extract
    from mmsa_cache.api.opening import open as open
    from mmsa_cache.api.run import Run as Run
    from mmsa_cache.api.searching import search as search
    from mmsa_cache.api.study import Study as Study
    from mmsa_cache.api.training import train as train
    from mmsa_cache.compose.demo import make_demo as make_demo
    from mmsa_cache.compose.predict.banks import live_bank as live_bank
    from mmsa_cache.compose.predict.banks import open_bank as open_bank
    from mmsa_cache.compose.predict.predictor import Predictor as Predictor
    from mmsa_cache.compose.predict.predictor import load_model as load_model
    from mmsa_cache.compose.session.samples import classes_of as classes_of
    from mmsa_cache.compose.session.samples import load_samples as load_samples
    from mmsa_cache.compose.session.session import Session as Session
    from mmsa_cache.config.loading import load_settings as load_settings
    from mmsa_cache.config.settings import Settings as Settings
    from mmsa_cache.data.pairs import Sample as Sample
    from mmsa_cache.data.splits import duplicate_groups as duplicate_groups
    from mmsa_cache.data.splits import grouped_folds as grouped_folds
    from mmsa_cache.data.splits import outer_split as outer_split
    from mmsa_cache.errors import CacheError as CacheError
    from mmsa_cache.errors import CacheNotFoundError as CacheNotFoundError
    from mmsa_cache.errors import DamagedCacheError as DamagedCacheError
    from mmsa_cache.errors import DataError as DataError
    from mmsa_cache.errors import DeviceError as DeviceError
    from mmsa_cache.errors import MmsaError as MmsaError
    from mmsa_cache.errors import ModelError as ModelError
    from mmsa_cache.errors import SettingsError as SettingsError
    from mmsa_cache.errors import StaleCacheError as StaleCacheError
    from mmsa_cache.features.bank import FeatureBank as FeatureBank
    from mmsa_cache.features.batch import Batch as Batch
    from mmsa_cache.features.batch import Dims as Dims

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "FusionClassifier": "api.classifier",
        "check": "api.checking",
        "open": "api.opening",
        "extract": "api.opening",
        "Run": "api.run",
        "search": "api.searching",
        "Study": "api.study",
        "train": "api.training",
        "open_bank": "compose.predict.banks",
        "live_bank": "compose.predict.banks",
        "make_demo": "compose.demo",
        "load_model": "compose.predict.predictor",
        "Predictor": "compose.predict.predictor",
        "classes_of": "compose.session.samples",
        "load_samples": "compose.session.samples",
        "Session": "compose.session.session",
        "load_settings": "config.loading",
        "Settings": "config.settings",
        "Sample": "data.pairs",
        "duplicate_groups": "data.splits",
        "grouped_folds": "data.splits",
        "outer_split": "data.splits",
        "CacheError": "errors",
        "CacheNotFoundError": "errors",
        "DamagedCacheError": "errors",
        "DataError": "errors",
        "DeviceError": "errors",
        "MmsaError": "errors",
        "ModelError": "errors",
        "SettingsError": "errors",
        "StaleCacheError": "errors",
        "FeatureBank": "features.bank",
        "Batch": "features.batch",
        "Dims": "features.batch",
    },
)
