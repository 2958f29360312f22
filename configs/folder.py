"""A folder of images with captions of one's own, on a laptop or one accelerator.

    python -m coca_jax.train --config=configs/folder.py --workdir=runs/photos --config.data.dataset.path=photos

A small model, trained from scratch: thousands of images are the least it learns from.
"""

from coca_jax.presets import pretraining


def get_config(arg=None):
    return pretraining.small("folder")
