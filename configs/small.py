"""A small model on any set of coca_jax/presets/datasets.py: the set's name stands behind the colon.

    python -m coca_jax.train --config=configs/small.py:tars --workdir=runs/own --config.data.path=FOLDER_OF_TARS
    python -m coca_jax.train --config=configs/small.py:coco_captions --workdir=runs/coco
    python -m coca_jax.train --config=configs/small.py:class_folders --workdir=runs/pets --config.data.path=FOLDER

To see that all is well before a larger model is trained on it.
"""

from coca_jax.presets import pretraining as recipes


def get_config(arg=None):
    return recipes.small(arg or "folder")
