"""NLVR2, of a run of configs/adapt/nlvr2.py: accuracy on dev and test-P.

    python -m coca_jax.evaluate --checkpoint=runs/nlvr2 --config=configs/eval/nlvr2.py:FOLDER

docs/adaptation.md says where the files lie in FOLDER.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    files = {"nlvr2_dev": {"path": "dev.json"}, "nlvr2_test": {"path": "test1.json"}}
    return adaptation.evaluations(arg, "nlvr2", "head_classification", "https://github.com/lil-lab/nlvr", files)
