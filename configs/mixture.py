r"""Two sources, half of every batch each, as in the paper: pairs from web pages, and an annotated dataset through prompts.

    python -m coca_jax.train --config=configs/mixture.py --workdir=runs/mixture \
        --config.data.mixture.web.dataset.path=FOLDER_OF_TARS \
        --config.data.mixture.labels.dataset.path=FOLDER_OF_CLASS_FOLDERS

`:size=laptop` shrinks the model to a trial of three steps. `--config.data.mixture.web.share=3` makes it three quarters.
"""

from coca_jax import config as config_lib
from coca_jax.presets import datasets, pretraining


def get_config(arg=None):
    config = pretraining.coca("base", arg, data=())
    config.data = config_lib.default().data
    config.data.long_text = "truncate"
    config.data.mixture = {
        "web": config_lib.source(share=0.5, **datasets.data("tars")),
        "labels": config_lib.source(share=0.5, **datasets.data("class_folders")),
    }
    return config
