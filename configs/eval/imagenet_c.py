r"""Zero-shot classification on ImageNet-C: 15 corruptions in 5 severities, their mean and mCE.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet_c.py:names=FOLDER

`tfds build imagenet2012_corrupted/fog_3` and so on make the datasets; FOLDER as in imagenet.py. The mean accuracy is
imagenet_c/zero_shot_class, and mCE imagenet_c/mean_corruption_error: the errors of each corruption over AlexNet's, whose
mCE is 100 %. Both are of what one command evaluates, and mCE needs all 75 datasets.
"""

from coca_jax.presets import imagenet


def get_config(arg=None):
    return imagenet.imagenet_c(arg)
