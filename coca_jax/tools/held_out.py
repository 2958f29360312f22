"""The pictures that training must not have seen: held-out sets of a config, of other config files, plain folders."""

import runpy
from collections.abc import Sequence

from coca_jax import config as configs
from coca_jax.config import Config, DatasetConfig, EvaluationConfig
from coca_jax.data.records import fields
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, Record, bad_records
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.tools.near_duplicates import Held

_PICTURES = tuple(f".{kind}" for kind in (*fields.PICTURES, *fields.CLIPS))


def held_out(config: Config, against: Sequence[str], own: bool = True) -> list[Held]:
    """The held-out records of a config's sets (where `own`) and of its evaluations, and those of more files or folders.

    Raises:
      CocaError: one of them cannot be found or read, or there is none at all.
    """
    found = _of_config(config, "") if own else _of_evaluation(config.evaluation, "")
    for path in against:
        if path.partition(":")[0].endswith(".py"):
            found += _of_file(path)
        else:
            found.append(Held(path, DatasetConfig(format="folder", path=path), Folder(path)))
    if not found:
        raise CocaError("there is nothing to compare with: name a set with --against, or do without --noown")
    return found


def _of_config(config: Config, prefix: str) -> list[Held]:
    sources = config.data.sources
    own = [
        _open(prefix + name, source)
        for name, source in sources.items()
        if source.format != "digit_scenes" and source.holds_out
    ]
    return own + _of_evaluation(config.evaluation, prefix)


def _of_evaluation(evaluation: EvaluationConfig, prefix: str) -> list[Held]:
    return [_open(prefix + name, source) for name, source in evaluation.sets.items() if source.format != "digit_scenes"]


def _open(name: str, source: DatasetConfig) -> Held:
    return Held(name, source, records.open_records(source, "evaluation"))


def _of_file(path: str) -> list[Held]:
    file, _, argument = path.partition(":")
    try:
        get_config = runpy.run_path(file)["get_config"]
        values = get_config(argument) if argument else get_config()
    except (OSError, KeyError) as error:
        raise CocaError(
            f"--against={path} is no config file that can be read ({error}): name one with get_config, or "
            "a folder of pictures"
        ) from error
    prefix = path + " "
    if "data" in values:
        return _of_config(configs.from_config_dict(values), prefix)
    return _of_evaluation(configs.evaluation_from_config_dict(values), prefix)


class Folder:
    """All pictures and clips below a folder, without any text: enough of a store to compare pictures."""

    def __init__(self, path: str):
        """Lists them.

        Raises:
          CocaError: the folder does not exist, or has none.
        """
        self._files = [file for file in storage.list_files(path) if file.name.lower().endswith(_PICTURES)]
        if not self._files:
            raise CocaError(f"there is no picture below {path}: --against names a folder of pictures or a config file")

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        found = bad_records(storage.read_each([self._files[index].path for index in indices]))
        return [
            data if isinstance(data, BadRecord) else Record(self.key(index), data, (), {})
            for index, data in zip(indices, found, strict=True)
        ]

    def key(self, index: int) -> str:
        return self._files[index].name

    def name(self, index: int) -> str:
        return self._files[index].path
