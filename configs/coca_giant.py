r"""The paper's CoCa (2.1B) on tars of one's own; `:res=576` is its second stage, `:size=laptop` a trial.

    python -m coca_jax.train --config=configs/coca_giant.py:size=laptop --workdir=runs/coca_giant_laptop
    python -m coca_jax.train --config=configs/coca_giant.py --workdir=runs/coca_giant --config.data.dataset.path=FOLDER_OF_TARS
    python -m coca_jax.train --config=configs/coca_giant.py:res=576 --workdir=runs/coca_giant_576 \
        --config.data.dataset.path=FOLDER_OF_TARS --config.train.init_from=runs/coca_giant

The first needs no files: it trains on digit scenes. See coca_jax/presets/pretraining.py.
"""

from coca_jax.presets import pretraining


def get_config(arg=None):
    return pretraining.coca("giant", arg)
