"""Questions on simple drawings (https://github.com/vzhou842/easy-VQA), from any pretrained run, on a laptop.

    python -m coca_jax.train --config=configs/adapt/easy_vqa.py:FOLDER --workdir=runs/easy_vqa \
        --config.train.init_from=runs/quickstart

FOLDER is the repository's easy_vqa/data: all of train/ trains, and test/ is evaluated.
"""

from ml_collections import ConfigDict

from coca_jax import config as config_lib
from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    folder = arg or "data"
    config = adaptation.laptop_form("vqa", "questions", 1_500, length=36)
    config.data = config_lib.to_config_dict(config_lib.DataConfig())
    config.data.update(datasets.data("easy_vqa_questions"), name="easy_vqa", long_text="truncate")
    config.data.dataset.update(path=f"{folder}/train/questions.json", holdout=0.0)
    test = config_lib.evaluation_dataset(tasks=("vqa",))
    test.dataset.update(datasets.data("easy_vqa_questions")["dataset"], path=f"{folder}/test/questions.json")
    test.dataset.evaluation_files = ("*",)
    config.evaluation.datasets = ConfigDict({"easy_vqa_test": test})
    return config
