"""A small model on any dataset of coca_jax/presets/datasets.py, whose name follows the colon.

    python -m coca_jax.train --config=configs/small.py:tars --workdir=runs/own --config.data.dataset.path=FOLDER_OF_TARS
    python -m coca_jax.train --config=configs/small.py:coco_captions --workdir=runs/coco
    python -m coca_jax.train --config=configs/small.py:class_folders --workdir=runs/pets --config.data.dataset.path=FOLDER

To see that all is well before a larger model is trained on it.
"""

from coca_jax.presets import pretraining


def get_config(arg=None):
    return pretraining.small(arg or "folder")
