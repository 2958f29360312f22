r"""Few-shot classification on frozen embeddings: 1, 5, 10 and 20 training images a class, beside zero-shot classification.

    python -m coca_jax.evaluate --checkpoint=runs/quickstart --config=configs/eval/few_shot.py
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/few_shot.py:FOLDER

The first takes the embedded digit scenes, the second a folder of class folders, CLASS/x.jpg, or a table of images with
`--config.datasets.images.dataset.label_field=COLUMN`; a tenth is held out (`dataset.holdout`), the same images that a
training run on them holds out. Where the held-out images have files of their own, `dataset.evaluation_files` names them.

`"--config.datasets.images.few_shot.shots=(5,0)"` takes five training images a class, and all of them (a linear probe).
Any evaluation of labelled records has the same task: add `few_shot` to its `tasks`.
"""

from coca_jax import config as config_lib
from coca_jax.presets.datasets import CLIP_PROMPTS


def get_config(arg=None):
    tasks = ("classification", "few_shot")
    if not arg:
        return config_lib.evaluation_config(digit_scenes=config_lib.evaluation_dataset(tasks=tasks))
    images = config_lib.evaluation_dataset(
        dataset={
            "format": "folder",
            "path": arg,
            "evaluation_files": (),
            "label_field": "folder",
            "prompts": CLIP_PROMPTS,
        },
        tasks=tasks,
        long_text="truncate",
    )
    return config_lib.evaluation_config(images=images)
