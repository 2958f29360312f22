"""Moments in Time by frozen features or finetuned (paper §4.2.1, Table 9), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/moments_in_time.py --workdir=runs/mit_frozen \
        --config.data.dataset.path=moments_in_time --config.train.init_from=runs/coca_giant_576

docs/adaptation.md says where the clips lie; `:size=laptop` is that of kinetics.py.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    return adaptation.actions(arg, "moments_in_time")
