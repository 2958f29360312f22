"""The choice of a split's records: by file, by the held-out share, by key and by metadata."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import braceexpand
import numpy as np

from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

_AT_ONCE = 1_000  # records whose metadata is read at a time: examples bring their images along


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern such as {00000..00099}.tar or {a,b}.tar stands for; CocaError if a brace is missing."""
    try:
        return list(braceexpand.braceexpand(pattern, escape=False))
    except ValueError as error:  # UnbalancedBracesError, which the package does not export to type checkers
        raise CocaError(f"the pattern {pattern} has a brace without its counterpart: mend it") from error


@functools.lru_cache(maxsize=16)
def _patterns(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names and the wildcards of some patterns, without braces."""
    expanded = [name for one in patterns for name in (expand_braces(one) if "{" in one else [one])]
    wildcards = tuple(one for one in expanded if any(character in one for character in "*?["))
    return frozenset(expanded), wildcards


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    names, wildcards = _patterns(patterns)
    return name in names or any(fnmatch.fnmatchcase(name, one) for one in wildcards)


@dataclasses.dataclass(frozen=True)
class KeyList:
    """Keys of records to leave out: their digest and, as there may be millions, only their sorted hashes (uint64 [n])."""

    digest: str
    hashes: np.ndarray = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_file(cls, path: str) -> "KeyList":
        """The keys of a text file, one a line; raises CocaError if it cannot be read."""
        try:
            lines = storage.read(path).decode("utf-8", "surrogateescape").split("\n")
        except storage.ReadError as error:
            raise CocaError(
                f"{path} cannot be read ({error}): exclude_keys names a file with one key a line"
            ) from error
        keys = sorted({line.removesuffix("\r") for line in lines} - {""})
        return cls(storage.digest(*keys), np.unique(Strings.of(keys).hashes()))


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which records of a dataset belong to a split.

    Attributes:
      part: "train" or "evaluation": only this side of the held-out share. "": both.
      holdout: the share.
      exclude: records whose metadata has one of these "field=value" are left out.
      only: unless empty, records whose metadata has none of these are left out.
      exclude_keys: records with one of these keys are left out.
      files, without_files: patterns of file names, with wildcards or braces; a file must match one of `files` and none
        of `without_files`. They are not part of `repr`, which goes into fingerprints: the files themselves do.
    """

    part: str = ""
    holdout: float = 0.0
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    exclude_keys: KeyList | None = None
    files: tuple[str, ...] = dataclasses.field(default=("*",), repr=False)
    without_files: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    @property
    def is_everything(self) -> bool:
        """Whether all records of the files belong to the split."""
        return not self.part and not self.exclude and not self.only and not self.exclude_keys

    def has_file(self, name: str) -> bool:
        """Whether the file of that name is one of the split's."""
        return _matches(name, self.files) and not _matches(name, self.without_files)

    def excluded(self, count: int, metadata: Callable[[range], list[dict[str, Any]]]) -> np.ndarray:
        """bool [count]: which records `exclude` and `only` leave out by their metadata, given for some at a time."""

        def has_one(row: dict[str, Any], conditions: tuple[str, ...]) -> bool:
            pairs = (condition.partition("=") for condition in conditions)
            return any(field in row and str(row[field]) == value for field, _, value in pairs)

        parts = [range(count)[start : start + _AT_ONCE] for start in range(0, count, _AT_ONCE)]
        rows = (row for part in parts for row in metadata(part))
        excluded = (has_one(row, self.exclude) or (bool(self.only) and not has_one(row, self.only)) for row in rows)
        return np.fromiter(excluded, bool, count)

    def choose(
        self, keys: Callable[[], Strings], excluded: Callable[[], np.ndarray], usable: np.ndarray
    ) -> tuple[np.ndarray, int | None]:
        """Which records belong to the split (bool [n]), and how many usable ones are held out (None: no share is).

        `keys` gives the keys of all records, and `excluded` those that are `excluded` by metadata, bool [n]: each is
        called only if the selection depends on it. `usable`, bool [n], are the records that can belong to any split.
        """
        chosen, held_out = usable.copy(), None
        hashes = keys().hashes() if self.part or self.exclude_keys else np.zeros(0, np.uint64)
        if self.part:
            is_held_out = usable & (hashes < np.uint64(min(int(self.holdout * 2**64), 2**64 - 1)))
            held_out = int(is_held_out.sum())
            chosen &= is_held_out if self.part == "evaluation" else ~is_held_out
        if self.exclude_keys:
            chosen &= ~np.isin(hashes, self.exclude_keys.hashes)
        if self.exclude or self.only:
            chosen &= ~excluded()
        return chosen, held_out
