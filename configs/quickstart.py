"""The embedded dataset on a laptop: real handwriting in small coloured scenes, learned in minutes on two cores."""

from coca_jax import config as config_lib


def get_config(arg=None):
    config = config_lib.default()
    config.model.update(width=96, heads=3, dtype="float32", remat="full", kernel_variance=2.0)
    config.objective.pretraining.captioning_weight = 3.0
    config.model.image.update(size=40, patch=8, stem="conv", layers=3, mlp=288, position_scale=0.7)
    config.model.pooler.update(queries=0, hidden_multiple=1)
    config.model.text.update(vocabulary_size=256, length=24, unimodal_layers=2, multimodal_layers=2, mlp=192)
    config.optimizer.update(
        name="muon",
        peak_learning_rate=1e-2,
        b1=0.95,
        b2=0.98,
        warmup_fraction=0.05,
        weight_decay=0.05,
        clip_norm=1.0,
        ema_decay=0.99,
    )
    config.train.update(steps=1_800, batch_size=128, checkpoint_every=200, log_every=20)
    return config
