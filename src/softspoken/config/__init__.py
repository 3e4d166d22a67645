"""What can be set, with its default, its check and its help text: frozen dataclasses, read from flags or YAML.

The text under each field is the help a user sees. A field that belongs to several commands means the same in each.
"""

from softspoken.config.estimating import EstimateConfig
from softspoken.config.evaluation import EvaluateConfig
from softspoken.config.inference import GenerateConfig, ScoreConfig
from softspoken.config.kinds import Data, Device, KlEstimator, OnBadRow, Quantization, Side
from softspoken.config.preference import DpoConfig
from softspoken.config.serving import DemoConfig, ExportConfig, ServeConfig
from softspoken.config.sweeping import SweepConfig
from softspoken.config.training import TrainConfig
from softspoken.config.warm_start import SftConfig

__all__ = [
    "Data",
    "DemoConfig",
    "Device",
    "DpoConfig",
    "EstimateConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "KlEstimator",
    "OnBadRow",
    "Quantization",
    "ScoreConfig",
    "ServeConfig",
    "SftConfig",
    "Side",
    "SweepConfig",
    "TrainConfig",
]
