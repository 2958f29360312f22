"""A folder of pictures with captions of one's own, on a laptop or one accelerator.

    python -m coca_jax.train --config=configs/folder.py --workdir=runs/photos --config.data.path=photos

A small model, trained from scratch: thousands of pictures are the least it learns from.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    config = config_lib.default()
    config.model.update(width=192, heads=6, dtype="float32", remat="full")
    config.model.image.update(size=96, patch=16, stem="conv", layers=4, mlp=768)
    config.model.pooler.update(queries=16, hidden_multiple=1)
    config.model.text.update(vocabulary_size=4_000, length=48, unimodal_layers=2, multimodal_layers=2, mlp=768)
    config.optimizer.update(
        name="adamw", peak_learning_rate=5e-4, b2=0.98, warmup_fraction=0.05, weight_decay=0.1, clip_norm=1.0,
        ema_decay=0.99,
    )
    config.data.update(task="folder", augment="crop", long_text="truncate")
    config.train.update(steps=2_000, batch_size=64, checkpoint_every=200, log_every=20)
    config.evaluation.update(batch_size=64)
    return config
