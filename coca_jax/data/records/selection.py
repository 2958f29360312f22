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
      part: "train" or "evaluation": only this side of the held-out records. "": both.
      holdout: their share; or conditions, of which their metadata has one.
      exclude: conditions "field=value"; records whose metadata has one of them are left out.
      only: unless empty, records whose metadata has none of these conditions are left out.
      exclude_keys: records with one of these keys are left out.
      files, without_files: patterns of file names, with wildcards or braces; a file must match one of `files` and none
        of `without_files`. They are not part of `repr`, which goes into fingerprints: the files themselves do.
    """

    part: str = ""
    holdout: float | tuple[str, ...] = 0.0
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

    @property
    def conditions(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The conditions "field=value" of `exclude`, of `only` and of `holdout`."""
        return self.exclude, self.only, self.holdout if isinstance(self.holdout, tuple) else ()

    def met(self, count: int, metadata: Callable[[range], list[dict[str, Any]]]) -> np.ndarray:
        """bool [3, count]: which records meet one of each of the `conditions`; their metadata is given for some at a time."""

        def has_one(row: dict[str, Any], conditions: tuple[str, ...]) -> bool:
            pairs = (condition.partition("=") for condition in conditions)
            return any(field in row and str(row[field]) == value for field, _, value in pairs)

        parts = [range(count)[start : start + _AT_ONCE] for start in range(0, count, _AT_ONCE)]
        rows = (row for part in parts for row in metadata(part))
        met = ([has_one(row, conditions) for conditions in self.conditions] for row in rows)
        return np.fromiter(met, np.dtype((bool, 3)), count).T

    def choose(
        self, keys: Callable[[], Strings], met: Callable[[], np.ndarray], usable: np.ndarray
    ) -> tuple[np.ndarray, int | None]:
        """Which records belong to the split (bool [n]), and how many usable ones are held out (None if it takes both sides).

        `keys` gives the keys of all records, and `met` is the method of that name: each is called only if the selection
        depends on it. `usable`, bool [n], are the records that can belong to any split.
        """
        chosen, held_out = usable.copy(), None
        by_share = bool(self.part) and not isinstance(self.holdout, tuple)
        hashes = keys().hashes() if by_share or self.exclude_keys else np.zeros(0, np.uint64)
        if any(self.conditions):
            is_excluded, is_among, meets_holdout = met()
            chosen &= ~is_excluded & (is_among | (not self.only))
        if self.part:
            if isinstance(self.holdout, tuple):
                is_held_out = usable & meets_holdout
            else:
                is_held_out = usable & (hashes < np.uint64(min(int(self.holdout * 2**64), 2**64 - 1)))
            held_out = int(is_held_out.sum())
            chosen &= is_held_out if self.part == "evaluation" else ~is_held_out
        if self.exclude_keys:
            chosen &= ~np.isin(hashes, self.exclude_keys.hashes)
        return chosen, held_out
