"""Collections of images to compare: splits of a config's datasets, of other config files, and plain folders."""

import os
import runpy
from collections.abc import Sequence
from typing import NamedTuple

from coca_jax import config as configs
from coca_jax.config import Config, DatasetConfig, EvaluationConfig
from coca_jax.data.records.open import SPLITS, open_records
from coca_jax.data.records.record import RecordStore
from coca_jax.errors import CocaError


class Collection(NamedTuple):
    """Images under a name."""

    name: str
    images: RecordStore


def evaluation_collections(config: Config, against: Sequence[str], own: bool = True) -> list[Collection]:
    """The images that training must not contain.

    Args:
      config: its evaluation datasets always belong to them.
      against: further folders of images, and config files whose held-out records count.
      own: whether the records that the config's training datasets hold out belong to them.

    Raises:
      CocaError: one of them does not exist or cannot be read, or there are none at all.
    """
    collections = _held_out(config if own else config.evaluation)
    for path in map(os.path.expanduser, against):
        if path.partition(":")[0].endswith(".py"):
            collections += _held_out(_config(path), f"{path} ")
        else:
            # A label that every file has: images count without texts, too.
            folder = DatasetConfig(format="folder", path=path, label_field="stem", holdout=0.0)
            collections.append(Collection(path, open_records(folder, SPLITS[0])))
    if not collections:
        raise CocaError("there is nothing to compare with: name a dataset with --against, or leave out --noown")
    return collections


def _held_out(config: Config | EvaluationConfig, prefix: str = "") -> list[Collection]:
    """The held-out records of a config's training and evaluation datasets, but for digit_scenes."""
    datasets: dict[str, DatasetConfig] = {}
    where = ""
    if isinstance(config, Config):
        datasets = {name: one.dataset for name, one in config.data.sources.items() if one.dataset.holds_out}
        config, where = config.evaluation, "evaluation.datasets."  # a training dataset may have the same name
    datasets |= {f"{where}{name}": one.dataset for name, one in config.datasets.items()}
    return [
        Collection(prefix + name, open_records(dataset, SPLITS[1]))
        for name, dataset in datasets.items()
        if dataset.format != "digit_scenes"
    ]


def _config(path: str) -> Config | EvaluationConfig:
    """The config of FILE[:ARGUMENT], a file of configs/ or configs/eval/."""
    file, _, argument = path.partition(":")
    try:
        get_config = runpy.run_path(file)["get_config"]
    except (OSError, KeyError) as error:
        raise CocaError(
            f"--against={path} is no config file that can be read ({error}): name one with get_config, or a folder"
        ) from error
    values = get_config(argument) if argument else get_config()
    return configs.from_config_dict(values) if "data" in values else configs.evaluation_from_config_dict(values)
