"""Photos of 100 kinds of things, from scratch by the captions "a photo of a …": what 4,393 images teach, minutes on two cores.

    python -m coca_jax.train --config=configs/caltech101.py --workdir=runs/caltech101 --config.data.dataset.path=FOLDER/metadata.csv
    python -m coca_jax.evaluate --checkpoint=runs/caltech101 --config=configs/eval/few_shot.py:FOLDER/metadata.csv \
        --config.datasets.images.dataset.label_field=label "--config.datasets.images.dataset.holdout_where=('part=test',)"

The photos are those of Caltech 101 (https://data.caltech.edu/records/mzrjq-6wc02) without the classes BACKGROUND_Google and
Faces_easy, at most 80 of each, made smaller; FOLDER/metadata.csv has the columns file_name, label (the kind in words) and
part (train or test). The run is evaluated zero-shot; the second command adds k-shot classification, and
configs/adapt/caltech101.py a frozen pooler and finetuning.
"""

from coca_jax.presets import datasets, pretraining


def get_config(arg=None):
    config = pretraining.minutes_on_cpu(128, weight_decay=0.1, ema_decay=0.995)
    # So few photos teach a ConvNet much more than a ViT of the same cost.
    config.model.image.update(kind="convnet", size=64, patch=8, layers=3, mlp=512)
    config.model.text.update(vocabulary_size=400, length=16, unimodal_layers=1, multimodal_layers=1, mlp=256)
    config.data.update(datasets.data("caltech101"), name="caltech101")
    config.train.steps = 850
    config.evaluation.update(examples=1_502, gallery=24)
    return config
