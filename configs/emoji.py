"""Drawings of 1,636 Unicode concepts by five design teams: train on four, test on the style of the fifth.

    python -m coca_jax.train --config=configs/emoji.py --workdir=runs/emoji --config.data.dataset.path=FOLDER_OF_TARS

The folder holds one WebDataset tar per team (noto, fluent, emojitwo, blobmoji; twemoji is held out), each record an
image, its name as text, and JSON metadata. The 80 concepts marked `heldout_concept` are left out of training.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    config = config_lib.default()
    config.model.update(width=128, heads=4, dtype="float32", remat="full", kernel_variance=2.0)
    config.model.image.update(size=64, patch=16, stem="conv", layers=3, mlp=512, position_scale=0.7)
    config.model.pooler.update(queries=0, hidden_multiple=1)
    config.model.text.update(vocabulary_size=1_024, length=28, unimodal_layers=2, multimodal_layers=2, mlp=256)
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
    config.data.update(name="emoji", augmentation={"crop": "drawing"}, long_text="truncate")
    config.data.dataset.update(
        format="tars",
        train_files=("noto-*", "fluent-*", "emojitwo-*", "blobmoji-*"),
        evaluation_files=("twemoji-*",),
        exclude=("split=heldout_concept",),
    )
    config.train.update(steps=1_200, batch_size=128, checkpoint_every=200, log_every=20)
    config.evaluation.update(examples=1_636, gallery=36)
    return config
