"""Classifies images, one line each: the file, a tab, the class, a tab, its probability.

    python -m coca_jax.classify --checkpoint=runs/digits image.png …
    python -m coca_jax.classify --checkpoint=runs/actions --top=5 clip.mp4 …
    python -m coca_jax.classify --checkpoint=runs/entailment --text="the digit on the left is red" image.png …
    python -m coca_jax.classify --checkpoint=runs/pairs --text="in both pictures the left shows a three" left.png right.png …
    python -m coca_jax.classify --checkpoint=runs/quickstart --labels=red,blue --templates="a small {} three" image.png …

A run with a head chooses among the classes of its training; of pairs each line begins with both files. Any other run chooses
among --labels, by the similarity of the image to prompts (zero-shot). What cannot be read is named on standard error; the
others are classified, and the exit status is 2.
"""

import itertools
import typing

from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.cli import inference
from coca_jax.errors import CocaError

if typing.TYPE_CHECKING:
    import numpy as np

    from coca_jax.config import ObjectiveConfig
    from coca_jax.inference.model import Coca

_CHECKPOINT = command_line.define_checkpoint()
_TOP = flags.DEFINE_integer(
    "top", 1, "So many classes of each image, the most probable first, a line each.", lower_bound=1
)
_TEXT = flags.DEFINE_string("text", "", "Of a run whose head reads a text: the hypothesis, statement or question.")
_LABELS = flags.DEFINE_list("labels", [], "Of a run without a head: the classes, with commas between them.")
_TEMPLATES = flags.DEFINE_multi_string(
    "templates", [], "The prompt of the labels, with {} in the place of the label; may be given several times."
)


def main(arguments: list[str]) -> int:
    checkpoint, paths = command_line.required(_CHECKPOINT), inference.named_files(arguments)
    import coca_jax
    from coca_jax.inference.prediction import Prediction
    from coca_jax.trainer.checkpoint import load_record

    record = load_record(checkpoint)
    _check_flags(bool(record.classes), record.config.objective)
    coca = coca_jax.load(checkpoint)
    readable, images, status = inference.read_examples(coca.config, paths, as_trained=bool(coca.classes))
    classes = coca.classes or _LABELS.value
    for files, row in zip(readable, _probabilities(coca, images), strict=True):
        for label, probability in itertools.islice(Prediction.of(classes, row).probabilities.items(), _TOP.value):
            inference.print_row(files, label, probability)
    return status


def _check_flags(has_head: bool, objective: "ObjectiveConfig") -> None:
    """Raises CocaError for a flag that the run lacks, or cannot use."""
    if has_head and (_LABELS.value or _TEMPLATES.value):
        raise CocaError("--labels and --templates have no effect: the run's head has classes of its own")
    if not has_head and not _LABELS.value:
        raise CocaError("--labels is missing: the run has no head, so name the classes, such as --labels=cat,dog")
    if objective.reads_text and not _TEXT.value:
        hint = (
            "python -m coca_jax.answer asks it questions" if objective.name == "vqa" else 'such as --text="it is red"'
        )
        raise CocaError(f"--text is missing: the run's head reads a text with the image; {hint}")
    if _TEXT.value and not objective.reads_text:
        raise CocaError("--text has no effect: the run was not trained with texts to classify")


def _probabilities(coca: "Coca", images: "np.ndarray") -> "np.ndarray":
    """float32 [N, C]."""
    if coca.classes:
        return coca.head_probabilities(images, _TEXT.value or None)
    return coca.class_probabilities(images, _LABELS.value, _TEMPLATES.value or ("{}",))


if __name__ == "__main__":
    command_line.run(main)
