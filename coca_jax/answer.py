"""Answers a question about each image, one line each: the file, a tab, the answer.

    python -m coca_jax.answer --checkpoint=runs/questions --question="what color is the three?" image.png …
    python -m coca_jax.answer --checkpoint=runs/questions --question="what color is the three?" --in_words image.png …

A run that was adapted to questions (objective vqa) chooses among its answers, and after another tab comes the probability.
Any other run that writes captions, or one with --in_words, generates the answer, under the flags of `caption`. An image that
cannot be read is named on standard error; the others are answered, and the exit status is 2.
"""

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.cli import inference
from coca_jax.errors import CocaError

_CHECKPOINT = command_line.define_checkpoint()
_QUESTION = flags.DEFINE_string("question", "", "The question.")
_IN_WORDS = flags.DEFINE_bool("in_words", False, "Generate the answer, where the run could choose among its answers.")
_GENERATION = inference.GenerationFlags()


def main(arguments: list[str]) -> int:
    checkpoint, question = command_line.required(_CHECKPOINT), command_line.required(_QUESTION)
    paths = inference.named_files(arguments)
    import coca_jax
    from coca_jax.trainer.checkpoint import load_record

    generation = _GENERATION.arguments
    chooses = load_record(checkpoint).config.objective.name == "vqa" and not _IN_WORDS.value
    if chooses and _GENERATION.given:
        unused = ", ".join(f"--{name}" for name in _GENERATION.given)
        raise CocaError(f"{unused} has no effect on an answer that is chosen: add --in_words to generate it")
    coca = coca_jax.load(checkpoint)
    readable, images, status = inference.read_examples(coca.config, paths)
    if chooses:
        for files, prediction in zip(readable, coca.predict(images, question), strict=True):
            inference.print_row(files, prediction.label, prediction.probability)
    else:
        answers = coca.answer(images, question, in_words=True, **generation)
        for files, answer in zip(readable, answers, strict=True):
            inference.print_row(files, answer)
    return status


if __name__ == "__main__":
    command_line.run(main)
