"""ImageNet by frozen features or finetuned (paper §4.2.1, Table 9), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/imagenet.py --workdir=runs/imagenet_frozen \
        --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.train --config=configs/adapt/imagenet.py:features=finetuned,size=laptop --workdir=runs/digits

The first reads TFDS' imagenet2012; the second needs no files: which digit a scene shows, from runs/quickstart.
"""

from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    laptop = {
        "task": "digits",
        "steps": 3_000,
        "examples": 3_000,
        "encoder_learning_rate": 3e-3,
        "label_smoothing": 0.1,
    }
    config = adaptation.adapted("classification", arg, "imagenet", datasets.data("imagenet"), laptop)
    if config.data.dataset.format == "digit_scenes" and not config.objective.head.encoder_learning_rate:
        config.train.steps = 7_500  # a head alone overfits less, and its steps are cheap
        config.objective.head.label_smoothing = 0.0
        config.optimizer.ema_decay = 0.999
    return config
