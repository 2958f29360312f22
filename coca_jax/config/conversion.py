"""Strict conversion between the config dataclasses and `ConfigDict`, which config files and flags change."""

import dataclasses
import difflib
import operator
import os
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any

import ml_collections

from coca_jax.config import checks
from coca_jax.config.data import SourceConfig
from coca_jax.config.evaluation import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.config.training import Config
from coca_jax.errors import CocaError

_OUTSIDE = {"at least": operator.lt, "above": operator.le, "at most": operator.gt, "below": operator.ge}


def to_config_dict(config: Any, **changes: Any) -> ml_collections.ConfigDict:
    """A locked ConfigDict with the same keys and values, nested as the dataclasses are, and then changed."""
    values = ml_collections.ConfigDict(dataclasses.asdict(config)).lock()
    values.update(changes)
    return values


def default() -> ml_collections.ConfigDict:
    """Every default, as the ConfigDict that `configs/*.py` start from."""
    return to_config_dict(Config())


def source(**changes: Any) -> ml_collections.ConfigDict:
    """An entry of `config.data.mixture`: the defaults of `SourceConfig` with changes, all of them open to flags.

    config.data.mixture = {"web": source(share=3, dataset=dict(format="tars", path="/mnt/web")), "own": source(…)}
    """
    return to_config_dict(SourceConfig(), **changes)


def evaluation_dataset(**changes: Any) -> ml_collections.ConfigDict:
    """An entry of `EvaluationConfig.datasets`, as `source` makes those of a mixture."""
    return to_config_dict(EvaluationDatasetConfig(), **changes)


def evaluation_config(**datasets: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The defaults of `EvaluationConfig` with these datasets, as a file of `configs/eval/` returns them."""
    values = to_config_dict(EvaluationConfig())
    values.datasets = ml_collections.ConfigDict(datasets)
    return values


def from_config_dict(values: Any, *, reads_data: bool = True) -> Config:
    """The `Config` that a ConfigDict (or nested dict) describes, checked for contradictions.

    Missing keys take their defaults, so that a checkpoint written before a key existed still loads.

    Args:
      reads_data: False where no record is going to be read, so that the paths of datasets may be missing.

    Raises:
      CocaError: an unknown key, a wrong type, a value outside its choices or range, or a contradiction.
    """
    config = _build(Config(), values, "config")
    checks.check(config, reads_data=reads_data)
    return config


def evaluation_from_config_dict(values: Any, names: Sequence[str] = ()) -> EvaluationConfig:
    """The `EvaluationConfig` of a file of `configs/eval/`, with only the datasets of these names (none: all) kept and checked.

    Raises:
      CocaError: as `from_config_dict`; or there is no dataset of that name.
    """
    config = _build(EvaluationConfig(), values, "config")
    for name in names:
        if name not in config.datasets:
            near = "".join(difflib.get_close_matches(name, config.datasets, n=1, cutoff=0.0))
            known = ", ".join(config.datasets) or "none"
            raise CocaError(f"the config has no evaluation dataset {name!r}: did you mean {near!r}? There are {known}")
    config = dataclasses.replace(config, datasets={name: config.datasets[name] for name in names or config.datasets})
    checks.check_evaluation(config, (), "datasets")
    return config


def _build(default: Any, values: Any, where: str) -> Any:
    """The dataclass `default` with the values of a dict, converted strictly; `where` is its place in the config."""
    fields = {field.name: field for field in dataclasses.fields(default)}
    values = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else values
    if not isinstance(values, dict):
        raise CocaError(f"{where} is {values!r}: it must hold keys such as {where}.{next(iter(fields))}")
    converted = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)[0]
            raise CocaError(f"{where} has no key {key!r}: did you mean {where}.{near}?")
        name, old = f"{where}.{key}", getattr(default, key)
        if dataclasses.is_dataclass(old):
            converted[key] = _build(old, value, name)
        elif isinstance(old, dict):
            converted[key] = _build_each(typing.get_args(fields[key].type)[1], value, name)
        else:
            converted[key] = _convert(value, fields[key], name)
    return dataclasses.replace(default, **converted)


def _build_each(cls: type, values: Any, where: str) -> dict[str, Any]:
    """A dict of dataclasses, whose keys are free but must be names."""
    if not isinstance(values, dict):
        raise CocaError(f"{where} is {values!r}: it must map names to keys of {cls.__name__}")
    for key in values:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(key)):
            raise CocaError(f"{where} has the name {key!r}: letters, digits, - and _ make a name")
    return {key: _build(cls(), values[key], f"{where}.{key}") for key in sorted(values)}  # as ConfigDict orders them


def _convert(value: Any, field: dataclasses.Field[Any], name: str) -> Any:
    """A value of the field's type that keeps to its metadata."""
    wanted: Any = field.type
    several = typing.get_origin(wanted) is tuple
    if several:
        kind = typing.get_args(wanted)[0]
        if not isinstance(value, (list, tuple)) or not all(type(item) is kind for item in value):
            example = 'strings such as ("a", "b")' if kind is str else "whole numbers such as (1, 5)"
            raise CocaError(f"{name} is {value!r}: write a tuple of {example}")
        value = tuple(value)
    elif wanted is float and type(value) in (int, float):
        if not -sys.float_info.max <= value <= sys.float_info.max:  # not a number is not in there either
            raise CocaError(f"{name} = {value} must be a finite number")
        value = float(value)
    elif type(value) is not wanted:
        raise CocaError(f"{name} is {value!r}, a {type(value).__name__}: it must be a {wanted.__name__}")
    choices, bounds = field.metadata.get("choices"), field.metadata.get("range", {})
    each = value if several else (value,)
    if choices and not set(each) <= set(choices):
        raise CocaError(f"{name} is {value!r}: choose {'among' if several else 'one of'} {', '.join(choices)}")
    if any(_OUTSIDE[word](one, bound) for one in each for word, bound in bounds.items()):
        allowed = " and ".join(f"{word} {bound}" for word, bound in bounds.items())
        raise CocaError(f"{name} = {value} must be {allowed}")
    if field.metadata.get("path"):
        return tuple(map(os.path.expanduser, value)) if several else os.path.expanduser(value)
    return value
