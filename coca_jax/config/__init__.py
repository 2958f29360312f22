"""Frozen dataclasses: the one source of every default, and their strict conversion to and from ConfigDict.

The defaults are the paper's (§4.1, Table 1), and for what it leaves open those of Google's public code (docs/decisions.md).
"""

from coca_jax.config.conversion import (
    default,
    evaluation_config,
    evaluation_dataset,
    evaluation_from_config_dict,
    from_config_dict,
    source,
    to_config_dict,
)
from coca_jax.config.data import AugmentationConfig, DataConfig, DatasetConfig, SourceConfig
from coca_jax.config.evaluation import (
    CaptioningConfig,
    ClassificationConfig,
    EvaluationConfig,
    EvaluationDatasetConfig,
    FewShotConfig,
    RetrievalConfig,
)
from coca_jax.config.fields import differences
from coca_jax.config.model import ImageEncoderConfig, ModelConfig, PoolerConfig, TextConfig, variant
from coca_jax.config.training import (
    CaptioningFinetuningConfig,
    Config,
    HeadConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PretrainingConfig,
    StatementsConfig,
    TrainConfig,
    VqaConfig,
)
