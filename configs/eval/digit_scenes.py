r"""The embedded digit scenes, which need no files: any model that reads their captions can be evaluated.

python -m coca_jax.evaluate --checkpoint=runs/quickstart --config=configs/eval/digit_scenes.py
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    scenes = config_lib.evaluation_dataset(examples=1_000, tasks=("retrieval", "classification", "captioning"))
    return config_lib.evaluation_config(digit_scenes=scenes)
