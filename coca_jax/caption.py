"""Writes a caption for each image, one line each: the file, a tab, the caption.

    python -m coca_jax.caption --checkpoint=runs/quickstart image.png …
    python -m coca_jax.caption --checkpoint=runs/quickstart --beams=6 --prompt="a photo of" image.png …

An image that cannot be read is named on standard error; the others are captioned, and the exit status is 2.
"""

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.cli import inference

_CHECKPOINT = command_line.define_checkpoint()
_PROMPT = flags.DEFINE_string("prompt", "", "What each caption begins with.")
_GENERATION = inference.GenerationFlags()


def main(arguments: list[str]) -> int:
    checkpoint, paths = command_line.required(_CHECKPOINT), inference.named_files(arguments)
    import coca_jax

    generation = _GENERATION.arguments
    coca = coca_jax.load(checkpoint)
    readable, images, status = inference.read_examples(coca.config, paths)
    for files, text in zip(readable, coca.caption(images, prompts=_PROMPT.value, **generation), strict=True):
        inference.print_row(files, text)
    return status


if __name__ == "__main__":
    command_line.run(main)
