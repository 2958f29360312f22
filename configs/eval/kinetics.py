"""Kinetics, of a run of configs/adapt/kinetics.py: accuracy on the validation clips, by 4 clips of 3 crops each.

    python -m coca_jax.evaluate --checkpoint=runs/k400_frozen --config=configs/eval/kinetics.py:FOLDER

docs/adaptation.md says where the files lie in FOLDER.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    files = {"kinetics": {"path": "val.csv", **adaptation.CLIPS}}
    download = "https://github.com/cvdfoundation/kinetics-dataset"
    return adaptation.evaluations(arg, "kinetics", "head_classification", download, files)
