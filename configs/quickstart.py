"""The embedded dataset on a laptop: real handwriting in small coloured scenes, learned in minutes on two cores."""

from coca_jax.presets import pretraining


def get_config(arg=None):
    config = pretraining.minutes_on_cpu(96, weight_decay=0.05, ema_decay=0.99)
    config.objective.pretraining.captioning_weight = 3.0
    config.model.image.update(size=40, patch=8, stem="conv", layers=3, mlp=288, position_scale=0.7)
    config.model.text.update(vocabulary_size=256, length=24, unimodal_layers=2, multimodal_layers=2, mlp=192)
    config.train.steps = 1_800
    return config
