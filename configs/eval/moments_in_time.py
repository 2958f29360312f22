"""Moments in Time, of a run of configs/adapt/moments_in_time.py: accuracy on the validation clips, by 4 clips of 3 crops each.

    python -m coca_jax.evaluate --checkpoint=runs/mit_frozen --config=configs/eval/moments_in_time.py:FOLDER

docs/adaptation.md says where the files lie in FOLDER.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    files = {"moments_in_time": {"path": "validationSet.csv", "image_field": "validation/{0}", **adaptation.CLIPS}}
    download = "http://moments.csail.mit.edu"
    return adaptation.evaluations(arg, "moments_in_time", "head_classification", download, files)
