"""SNLI-VE, of a run of configs/adapt/snli_ve.py: accuracy on dev and test.

    python -m coca_jax.evaluate --checkpoint=runs/snli_ve --config=configs/eval/snli_ve.py:FOLDER

docs/adaptation.md says where the files lie in FOLDER.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    files = {f"snli_ve_{split}": {"path": f"snli_ve_{split}.jsonl"} for split in ("dev", "test")}
    download = "https://github.com/necla-ml/SNLI-VE"
    return adaptation.evaluations(arg, "snli_ve", "head_classification", download, files)
