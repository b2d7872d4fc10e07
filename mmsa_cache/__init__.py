"""What both stages share: samples, splits, settings, the feature cache and the command line."""

from typing import TYPE_CHECKING

from .lazy import public

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .bank import Batch as Batch
    from .bank import Dims as Dims
    from .bank import FeatureBank as FeatureBank
    from .config import Settings as Settings
    from .config import load_settings as load_settings
    from .dataset import Sample as Sample
    from .errors import CacheError as CacheError
    from .errors import CacheNotFoundError as CacheNotFoundError
    from .errors import DamagedCacheError as DamagedCacheError
    from .errors import DataError as DataError
    from .errors import DeviceError as DeviceError
    from .errors import MmsaError as MmsaError
    from .errors import ModelError as ModelError
    from .errors import SettingsError as SettingsError
    from .errors import StaleCacheError as StaleCacheError
    from .features import classes_of as classes_of
    from .features import load_samples as load_samples
    from .pipeline import live_bank as live_bank
    from .pipeline import open_bank as open_bank
    from .predictor import Predictor as Predictor
    from .predictor import load_model as load_model
    from .splits import duplicate_groups as duplicate_groups
    from .splits import grouped_folds as grouped_folds
    from .splits import outer_split as outer_split

__getattr__, __all__ = public(
    __name__,
    {
        "Batch": "bank",
        "Dims": "bank",
        "FeatureBank": "bank",
        "Settings": "config",
        "load_settings": "config",
        "Sample": "dataset",
        "CacheError": "errors",
        "CacheNotFoundError": "errors",
        "DamagedCacheError": "errors",
        "DataError": "errors",
        "DeviceError": "errors",
        "MmsaError": "errors",
        "ModelError": "errors",
        "SettingsError": "errors",
        "StaleCacheError": "errors",
        "classes_of": "features",
        "load_samples": "features",
        "live_bank": "pipeline",
        "open_bank": "pipeline",
        "Predictor": "predictor",
        "load_model": "predictor",
        "duplicate_groups": "splits",
        "grouped_folds": "splits",
        "outer_split": "splits",
    },
)
