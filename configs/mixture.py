r"""Two sources, half of every batch each, as in the paper: pairs from web pages, and an annotated set through prompts.

    python -m coca_jax.train --config=configs/mixture.py --workdir=runs/mixture \
        --config.data.mixture.web.path=FOLDER_OF_TARS --config.data.mixture.labels.path=FOLDER_OF_CLASS_FOLDERS

`:size=laptop` shrinks the model to a trial of three steps. `--config.data.mixture.web.share=3` makes it three quarters.
"""

from coca_jax import config as config_lib
from coca_jax.presets import datasets as sets
from coca_jax.presets import pretraining as recipes


def get_config(arg=None):
    config = recipes.coca("base", arg)
    config.data.long_text = "truncate"
    config.data.mixture = {
        "web": config_lib.source(share=0.5, **sets.data("tars")),
        "labels": config_lib.source(share=0.5, **sets.data("class_folders")),
    }
    return config
