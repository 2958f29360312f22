"""Writes a caption for each picture, one line each: the file, a tab, the caption.

    python -m coca_jax.caption --checkpoint=runs/quickstart picture.png …

A picture that cannot be read is named on standard error; the others are captioned, and the exit status is 2.
"""

import sys

from absl import flags

from coca_jax import command_line
from coca_jax.errors import CocaError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run's folder, or one checkpoint below its checkpoints folder.")


def main(arguments: list[str]) -> int:
    paths = arguments[1:]
    checkpoint = command_line.required(_CHECKPOINT)
    if not paths:
        raise CocaError("there is no picture to caption: name one or more files after the flags")
    import coca_jax
    from coca_jax.data.images import load_image

    coca = coca_jax.load(checkpoint)
    readable, unreadable = [], 0
    for path in paths:
        try:
            readable.append((path, load_image(path, coca.config.model.image.size)))
        except CocaError as error:
            unreadable += 1
            print(f"error: {error}", file=sys.stderr)
    for (path, _), text in zip(readable, coca.caption([image for _, image in readable])):
        print(f"{path}\t{text}")
    return 2 if unreadable else 0


if __name__ == "__main__":
    command_line.run(main)
