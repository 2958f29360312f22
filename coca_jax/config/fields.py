"""Constructors of config fields, whose metadata holds what `conversion` checks: choices, ranges, and which are paths."""

import dataclasses
from typing import Any


def choice(default: str, *others: str) -> Any:
    """A string that is one of those given."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})


def choices(all_of_them: tuple[str, ...], default: tuple[str, ...]) -> Any:
    """A tuple of strings, each one of `all_of_them`."""
    return dataclasses.field(default=default, metadata={"choices": all_of_them})


def number(default: float, **bounds: float) -> Any:
    """An int or float within bounds (at_least, above, at_most, below); every number has some, so that slips show at once."""
    words = {word.replace("_", " "): bound for word, bound in bounds.items()}
    return dataclasses.field(default=default, metadata={"range": words})


def count(default: int, minimum: int = 1) -> Any:
    """An int of at least `minimum`."""
    return number(default, at_least=minimum)


def counts(default: tuple[int, ...], minimum: int = 1) -> Any:
    """A tuple of ints of at least `minimum`."""
    return dataclasses.field(default=default, metadata={"range": {"at least": minimum}})


def location(default: Any = "") -> Any:
    """A path (or a tuple of strings that may be some), in which a leading ~ means the home folder."""
    return dataclasses.field(default=default, metadata={"path": True})


def differences(config: Any) -> dict[str, Any]:
    """The keys of a config dataclass that are not their defaults, nested as the dataclasses are.

    Fingerprints hash this: a key that is added later changes none, a default may change only with its key's name.
    """
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), field.default
        if dataclasses.is_dataclass(value):
            value, default = differences(value), {}
        elif isinstance(value, dict):
            value, default = {name: differences(one) for name, one in value.items()}, {}
        if value != default:
            result[field.name] = value
    return result


def replaced(config: Any, changes: dict[str, Any]) -> Any:
    """A config dataclass with changes nested as those of `differences`."""
    nested = {
        name: replaced(getattr(config, name), value) if dataclasses.is_dataclass(getattr(config, name)) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **nested)


def flattened(values: dict[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts, by their keys with dots between."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            result |= {f"{key}.{inner}": leaf for inner, leaf in flattened(value).items()}
        else:
            result[key] = value
    return result
