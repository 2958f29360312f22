"""Kinetics-400, -600 or -700 by frozen features or finetuned (paper §4.2.1, Table 9), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/kinetics.py --workdir=runs/k400_frozen \
        --config.data.dataset.path=kinetics400 --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.train --config=configs/adapt/kinetics.py:size=laptop --workdir=runs/actions

docs/adaptation.md says where the clips lie. The second needs no files: what a digit does in clips of 8 frames, from
runs/quickstart. Its pooler sees the frames' order; with --config.objective.head.frame_positions=False, as in the paper,
it cannot tell an action from its reversal.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    return adaptation.actions(arg, "kinetics")
