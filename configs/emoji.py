"""Drawings of 1,636 Unicode concepts by five design teams: train on four, test on the style of the fifth.

    python -m coca_jax.train --config=configs/emoji.py --workdir=runs/emoji --config.data.dataset.path=FOLDER_OF_TARS

The folder holds one WebDataset tar per team (noto, fluent, emojitwo, blobmoji; twemoji is held out), each record an
image, its name as text, and JSON metadata. The 80 concepts marked `heldout_concept` are left out of training.
"""

from coca_jax.presets import datasets, pretraining


def get_config(arg=None):
    config = pretraining.minutes_on_cpu(128, weight_decay=0.1, ema_decay=0.995)
    config.model.image.update(size=64, patch=16, stem="conv", layers=3, mlp=512, position_scale=0.7)
    config.model.text.update(vocabulary_size=1_024, length=28, unimodal_layers=2, multimodal_layers=2, mlp=256)
    config.data.update(datasets.data("emoji"), name="emoji", long_text="truncate")
    config.train.steps = 1_200
    config.evaluation.update(examples=1_636, gallery=36)
    return config
