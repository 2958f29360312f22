"""The smallest adaptations: configs and batches of the digit scenes' tasks, and a folder of labelled images."""

import functools
import json
import pathlib

import numpy as np
import tiny

from coca_jax import config as config_lib
from coca_jax.data.digit_scenes.tasks import CLASSES, task_words
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.vocabulary import Vocabulary, train_vocabulary
from tests.data import builders

OBJECTIVES = {
    "digits": "classification",
    "actions": "classification",
    "questions": "vqa",
    "entailment": "entailment",
    "pairs": "pairs",
}


@functools.cache
def vocabulary() -> Vocabulary:
    texts = [task_words(task, index).text for task in CLASSES for index in range(40)]
    return train_vocabulary([*texts, *CLASSES["questions"]], 80)


def config(task: str, **changes) -> config_lib.Config:
    """The config of a task's objective; `changes` as those of `tiny.config`."""
    fixed = dict(
        objective__name=OBJECTIVES[task],
        objective__head__classes=len(CLASSES[task]),
        data__dataset__task=task,
        data__dataset__frames=8 * (task == "actions"),
        model__text__vocabulary_size=80,
        model__text__length=48,
        optimizer__name="adamw",
        optimizer__schedule="constant",
    )
    return tiny.config(**fixed | changes)


def batch(config: config_lib.Config, step: int = 0) -> dict[str, np.ndarray]:
    """A batch of a digit scenes' task."""
    return Pipeline(config, vocabulary(), classes=CLASSES[config.data.dataset.task]).batch(step)


def write_labelled(folder: pathlib.Path, count: int) -> str:
    """A folder of plain images, each lighter than the last, whose classes are "dark" and "light" in turn."""
    folder.mkdir()
    rows = []
    for number in range(count):
        (folder / f"{number}.png").write_bytes(builders.picture(5 * number))
        rows.append({"file_name": f"{number}.png", "caption": f"a {number}", "kind": ["dark", "light"][number % 2]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def stored(folder: str, **changes) -> config_lib.Config:
    """The config of a classification of the images that `write_labelled` wrote, with a frozen encoder."""
    fixed = dict(
        objective__name="classification",
        objective__head__classes=2,
        data__dataset__format="folder",
        data__dataset__path=folder,
        data__dataset__label_field="kind",
        model__text__vocabulary_size=80,
        optimizer__name="adamw",
        optimizer__schedule="constant",
    )
    return tiny.config(**fixed | changes)
