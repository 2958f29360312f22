"""The 100 kinds of things of configs/caltech101.py by a frozen pooler, or finetuned, from its run.

    python -m coca_jax.train --config=configs/adapt/caltech101.py --workdir=runs/caltech101_frozen \
        --config.data.dataset.path=FOLDER/metadata.csv
    python -m coca_jax.train --config=configs/adapt/caltech101.py:features=finetuned --workdir=runs/caltech101_finetuned \
        --config.data.dataset.path=FOLDER/metadata.csv

Each image is classified by three squares of it.
"""

from coca_jax.presets import adaptation, datasets
from coca_jax.presets.pretraining import arguments


def get_config(arg=None):
    frozen = arguments(arg, adaptation.FEATURES)["features"] == "frozen"
    steps, rate = (1_000, 0.0) if frozen else (2_700, 5e-3)
    config = adaptation.laptop_form(
        "classification",
        "captions",
        steps,
        frozen=frozen,
        encoder_learning_rate=rate,
        batch_size=64,
        label_smoothing=0.1,
        examples=1_502,
    )
    config.optimizer.weight_decay = 0.1
    config.data.update(datasets.data("caltech101"), name="caltech101")
    config.data.dataset.evaluation_crops = 3
    config.train.init_from = "runs/caltech101"
    return config
