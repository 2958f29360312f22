r"""The paper's CoCa-Base (383M) on tars of one's own; `:res=576` is its second stage, `:size=laptop` a trial.

    python -m coca_jax.train --config=configs/coca_base.py:size=laptop --workdir=runs/coca_base_laptop
    python -m coca_jax.train --config=configs/coca_base.py --workdir=runs/coca_base --config.data.dataset.path=FOLDER_OF_TARS
    python -m coca_jax.train --config=configs/coca_base.py:res=576 --workdir=runs/coca_base_576 \
        --config.data.dataset.path=FOLDER_OF_TARS --config.train.init_from=runs/coca_base

The first needs no files: it trains on digit scenes. See coca_jax/presets/pretraining.py.
"""

from coca_jax.presets import pretraining


def get_config(arg=None):
    return pretraining.coca("base", arg)
