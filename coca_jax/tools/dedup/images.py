"""Collections of images to compare: splits of a config's datasets, of other config files, and plain folders."""

import dataclasses
import os
import runpy
from collections.abc import Sequence

from coca_jax import config as configs
from coca_jax.config import Config, EvaluationConfig
from coca_jax.data.records import fields
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord, Record, RecordStore, bad_records
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage


@dataclasses.dataclass(frozen=True)
class Collection:
    """Images under a name: a record store, or a folder of images."""

    name: str
    images: "RecordStore | Folder"


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
            collections.append(Collection(path, Folder(path)))
    if not collections:
        raise CocaError("there is nothing to compare with: name a dataset with --against, or leave out --noown")
    return collections


def _held_out(config: Config | EvaluationConfig, prefix: str = "") -> list[Collection]:
    """The held-out records of a config's training and evaluation datasets, but for digit_scenes."""
    if isinstance(config, Config):
        own = [(name, source.dataset) for name, source in config.data.sources.items() if source.dataset.holds_out]
        # A training dataset may have the same name.
        datasets = own + [
            (f"evaluation.datasets.{name}", one.dataset) for name, one in config.evaluation.datasets.items()
        ]
    else:
        datasets = [(name, one.dataset) for name, one in config.datasets.items()]
    stored = [(name, dataset) for name, dataset in datasets if dataset.format != "digit_scenes"]
    return [Collection(prefix + name, open_records(dataset, "evaluation")) for name, dataset in stored]


def _config(path: str) -> Config | EvaluationConfig:
    """The config of FILE[:ARGUMENT], a file of configs/ or configs/eval/."""
    file, _, argument = path.partition(":")
    try:
        get_config = runpy.run_path(file)["get_config"]
        values = get_config(argument) if argument else get_config()
    except (OSError, KeyError) as error:
        raise CocaError(
            f"--against={path} is no config file that can be read ({error}): name one with get_config, or a folder of "
            "images"
        ) from error
    return configs.from_config_dict(values) if "data" in values else configs.evaluation_from_config_dict(values)


class Folder:
    """All images and clips below a folder, with or without texts; see `RecordStore`."""

    def __init__(self, path: str):
        """Lists them.

        Raises:
          CocaError: the folder does not exist, or has no image.
        """
        self._files = [file for file in storage.list_files(path) if fields.is_media_file(file.name)]
        if not self._files:
            raise CocaError(f"there is no image below {path}: --against names a folder of images or a config file")

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        contents = bad_records(storage.read_each([self._files[index].path for index in indices]))
        return [
            data if isinstance(data, BadRecord) else Record(self.key(index), data, (), {})
            for index, data in zip(indices, contents, strict=True)
        ]

    def key(self, index: int) -> str:
        return self._files[index].name

    def name(self, index: int) -> str:
        return self._files[index].path
