"""Statements on pairs of images, NLVR2 (paper §4.2.3, Table 10), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/nlvr2.py --workdir=runs/nlvr2 \
        --config.data.dataset.path=nlvr2/train.json --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.train --config=configs/adapt/nlvr2.py:size=laptop --workdir=runs/pairs

docs/adaptation.md says where the files lie. The second needs none: pairs of digit scenes, from runs/quickstart.
"""

from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    laptop = {"task": "pairs", "steps": 1_330, "length": 22, "encoder_learning_rate": 5e-3, "generative_weight": 2.0}
    return adaptation.adapted("pairs", arg, "nlvr2", datasets.data("nlvr2"), laptop)
