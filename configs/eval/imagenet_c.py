r"""Zero-shot classification on ImageNet-C: 15 corruptions in 5 severities, and their mean as imagenet_c/zero_shot_class.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet_c.py:names=FOLDER

`tfds build imagenet2012_corrupted/fog_3` and so on make the sets; FOLDER as in imagenet.py. What is given is the mean
accuracy, not mCE, which divides errors by AlexNet's.
"""

from coca_jax import evaluation_recipes


def get_config(arg=None):
    return evaluation_recipes.imagenet_c(arg)
