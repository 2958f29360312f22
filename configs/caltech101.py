"""Photos of 100 kinds of things, from scratch by the captions "a photo of a …": what 4,393 images teach, minutes on two cores.

    python -m coca_jax.train --config=configs/caltech101.py --workdir=runs/caltech101 --config.data.dataset.path=FOLDER/metadata.csv
    python -m coca_jax.evaluate --checkpoint=runs/caltech101 --config=configs/eval/few_shot.py:FOLDER/metadata.csv \
        --config.datasets.images.dataset.label_field=label "--config.datasets.images.dataset.holdout_where=('part=test',)"

The photos are those of Caltech 101 (https://data.caltech.edu/records/mzrjq-6wc02) without the classes BACKGROUND_Google and
Faces_easy, at most 80 of each, made smaller; FOLDER/metadata.csv has the columns file_name, label (the kind in words) and part (train or test). The run is evaluated zero-shot; the second command adds
k-shot classification, and configs/adapt/caltech101.py a frozen pooler and finetuning.
"""

from coca_jax import config as config_lib
from coca_jax.presets import datasets


def get_config(arg=None):
    config = config_lib.default()
    config.model.update(width=128, heads=4, dtype="float32", remat="full", kernel_variance=2.0)
    # So few photos teach a ConvNet much more than a ViT of the same cost.
    config.model.image.update(kind="convnet", size=64, patch=8, layers=3, mlp=512)
    config.model.pooler.update(queries=0, hidden_multiple=1)
    config.model.text.update(vocabulary_size=400, length=16, unimodal_layers=1, multimodal_layers=1, mlp=256)
    config.optimizer.update(
        name="muon",
        peak_learning_rate=1e-2,
        b1=0.95,
        b2=0.98,
        warmup_fraction=0.05,
        weight_decay=0.1,
        clip_norm=1.0,
        ema_decay=0.995,
    )
    config.data.update(datasets.data("caltech101"), name="caltech101")
    config.train.update(steps=850, batch_size=128, checkpoint_every=200, log_every=20)
    config.evaluation.update(examples=1_502, gallery=24)
    return config
