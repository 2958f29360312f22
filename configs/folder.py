"""A folder of pictures with captions of one's own, on a laptop or one accelerator.

    python -m coca_jax.train --config=configs/folder.py --workdir=runs/photos --config.data.path=photos

A small model, trained from scratch: thousands of pictures are the least it learns from.
"""

from coca_jax.presets import pretraining as recipes


def get_config(arg=None):
    return recipes.small("folder")
