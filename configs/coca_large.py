r"""The paper's CoCa-Large (787M) on tars of one's own; `:res=576` is its second stage, `:size=laptop` a trial.

    python -m coca_jax.train --config=configs/coca_large.py:size=laptop --workdir=runs/coca_large_laptop
    python -m coca_jax.train --config=configs/coca_large.py --workdir=runs/coca_large --config.data.dataset.path=FOLDER_OF_TARS
    python -m coca_jax.train --config=configs/coca_large.py:res=576 --workdir=runs/coca_large_576 \
        --config.data.dataset.path=FOLDER_OF_TARS --config.train.init_from=runs/coca_large

The first needs no files: it trains on digit scenes. See coca_jax/presets/pretraining.py.
"""

from coca_jax.presets import pretraining


def get_config(arg=None):
    return pretraining.coca("large", arg)
