"""Captioning for NoCaps: as coco_captioning.py, with a fifth of its steps (paper §4.2.3, Table 10).

    python -m coca_jax.train --config=configs/adapt/nocaps.py --workdir=runs/nocaps \
        --config.data.dataset.path=coco/dataset_coco.json --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.evaluate --checkpoint=runs/nocaps --config=configs/eval/nocaps.py …

The second writes the file for NoCaps' server.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    return adaptation.captioning(arg, "nocaps")
