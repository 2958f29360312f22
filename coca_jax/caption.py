"""Writes a caption for each image, one line each: the file, a tab, the caption.

    python -m coca_jax.caption --checkpoint=runs/quickstart image.png …
    python -m coca_jax.caption --checkpoint=runs/quickstart --beams=6 --prompt="a photo of" image.png …
    python -m coca_jax.caption --checkpoint=runs/quickstart --question="what color is the car?" image.png …

An image that cannot be read is named on standard error; the others are captioned, and the exit status is 2.
"""

import sys
from typing import Any

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.errors import CocaError

_CHECKPOINT = command_line.define_checkpoint()
_PROMPT = flags.DEFINE_string("prompt", "", "What each caption begins with.")
_QUESTION = flags.DEFINE_string("question", "", "Write the answer to this instead of a caption.")
_SEED = flags.DEFINE_integer("seed", 0, "For sampling.")
_OPTIONS = (  # coca_jax.generation.GenerationOptions explains them, and has the defaults
    flags.DEFINE_integer("min_tokens", None, "The fewest tokens to generate."),
    flags.DEFINE_integer("max_tokens", None, "The most tokens to generate."),
    flags.DEFINE_float("repetition_penalty", None, "Above 1: makes tokens that were generated before less likely."),
    flags.DEFINE_float("temperature", None, "Above 0: samples, the more freely the higher."),
    flags.DEFINE_integer("top_k", None, "Samples from so many of the most likely tokens."),
    flags.DEFINE_float("top_p", None, "Samples from the most likely tokens, which together have this probability."),
    flags.DEFINE_integer("beams", None, "Searches with so many hypotheses for each image, such as 6."),
    flags.DEFINE_float("length_penalty", None, "Of the search: 0 prefers short captions, 1 and more long ones."),
)


def main(arguments: list[str]) -> int:
    paths = arguments[1:]
    checkpoint = command_line.required(_CHECKPOINT)
    if not paths:
        raise CocaError("there is no image to caption: name one or more files after the flags")
    if _PROMPT.value and _QUESTION.value:
        raise CocaError("--prompt and --question exclude each other: give one of them")
    import coca_jax
    from coca_jax.data.images.inputs import load_input
    from coca_jax.generation import GenerationOptions

    given: dict[str, Any] = {flag.name: flag.value for flag in _OPTIONS if flag.value is not None}
    options = GenerationOptions(**given)
    coca = coca_jax.load(checkpoint)
    readable, images = [], []
    for path in paths:
        try:
            images.append(load_input(path, coca.config.model))
            readable.append(path)
        except CocaError as error:
            print(f"error: {error}", file=sys.stderr)
    if _QUESTION.value:
        texts = coca.answer(images, _QUESTION.value, options, seed=_SEED.value)
    else:
        texts = coca.caption(images, options, prompts=_PROMPT.value, seed=_SEED.value)
    for path, text in zip(readable, texts, strict=True):
        print(f"{path}\t{text}")
    return 0 if len(readable) == len(paths) else 2


if __name__ == "__main__":
    command_line.run(main)
