"""Code shared by the commands that apply a model to images: reading these, and the flags of generation."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from coca_jax.config import Config
from coca_jax.errors import CocaError

_USER_ERROR = 2
flags.disclaim_key_flags()  # --help of a command lists the flags that it defines through this module


def named_files(arguments: Sequence[str]) -> list[str]:
    """The positional arguments; CocaError if there is none."""
    if len(arguments) < 2:
        raise CocaError("there is no image: name one or more files after the flags")
    return list(arguments[1:])


def read_examples(
    config: Config, paths: Sequence[str], *, as_trained: bool = True
) -> tuple[list[tuple[str, ...]], np.ndarray, int]:
    """Reads the examples of a run: images or clips, or pairs of two images each; see `inference.examples.Examples`.

    Returns:
      the files of each example that can be read; the model's inputs of these, [N, …]; and the command's exit status: 2 if
      there are others, whose errors are printed on standard error.

    Raises:
      CocaError: the run takes pairs, and the number of paths is odd.
    """
    from coca_jax.inference.examples import Examples

    examples, size = Examples(config, as_trained), 2 if config.objective.name == "pairs" else 1
    if len(paths) % size:
        raise CocaError(f"this run takes pairs, and {len(paths)} is odd: name the two images of each pair in turn")
    readable, inputs, status = [], [], 0
    for start in range(0, len(paths), size):
        files = tuple(paths[start : start + size])
        try:
            inputs.append(examples.load(files if size > 1 else files[0]))
            readable.append(files)
        except CocaError as error:
            print(f"error: {error}", file=sys.stderr)
            status = _USER_ERROR
    return readable, examples.stacked(inputs), status


def print_row(files: Sequence[str], *values: str | float) -> None:
    """Prints the files of an example and what the model gave for it, with tabs between; floats are probabilities."""
    print(*files, *(f"{value:.4f}" if isinstance(value, float) else value for value in values), sep="\t")


class GenerationFlags:
    """The flags of generation, which the constructor defines."""

    def __init__(self) -> None:
        self._seed = flags.DEFINE_integer("seed", 0, "For sampling.")
        self._options = (  # coca_jax.generation.GenerationOptions explains them, and has the defaults
            flags.DEFINE_integer("min_tokens", None, "The fewest tokens to generate."),
            flags.DEFINE_integer("max_tokens", None, "The most tokens to generate."),
            flags.DEFINE_float("repetition_penalty", None, "Above 1: makes tokens generated before less likely."),
            flags.DEFINE_float("temperature", None, "Above 0: samples, the more freely the higher."),
            flags.DEFINE_integer("top_k", None, "Samples from so many of the most likely tokens."),
            flags.DEFINE_float(
                "top_p", None, "Samples from the most likely tokens, which together have this probability."
            ),
            flags.DEFINE_integer("beams", None, "Searches with so many hypotheses for each image, such as 6."),
            flags.DEFINE_float("length_penalty", None, "Of the search: 0 prefers short texts, 1 and more long ones."),
        )

    @property
    def given(self) -> dict[str, Any]:
        """The options that the command line sets, by name."""
        return {flag.name: flag.value for flag in self._options if flag.value is not None}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments `options` and `seed` for methods of `Coca` that generate."""
        from coca_jax.generation import GenerationOptions

        return {"options": GenerationOptions(**self.given), "seed": self._seed.value}
