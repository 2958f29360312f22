"""The concepts of drawings by a frozen pooler, and the groups of these concepts, on a design team that never trained.

    python -m coca_jax.train --config=configs/adapt/emoji.py:FOLDER_OF_TARS --workdir=runs/emoji_frozen

FOLDER_OF_TARS is that of configs/emoji.py, from whose run, runs/emoji, this one starts. A group is as probable as its
concepts together, as in the zero-shot classification of configs/eval/emoji.py. A head that learns the eight groups
themselves knows the unseen team's less well: with one class for many concepts it learns the drawings by heart.
"""

from ml_collections import ConfigDict

from coca_jax import config as config_lib
from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    config = adaptation.laptop_form("classification", "captions", 700, frozen=True, batch_size=256, label_smoothing=0.1)
    teams = datasets.data("emoji")["dataset"] | {"path": arg or "", "label_field": "name"}
    config.data.update(name="emoji")
    config.data.dataset.update(teams, evaluation_files=(), holdout=0.0)
    config.optimizer.weight_decay = 0.1
    config.train.update(cache_features=True, init_from="runs/emoji")
    unseen_team = config_lib.evaluation_dataset(
        dataset=teams,
        tasks=("head_classification",),
        classification={"fields": ("group", "subgroup")},
    )
    config.evaluation.datasets = ConfigDict({"twemoji": unseen_team})
    return config
