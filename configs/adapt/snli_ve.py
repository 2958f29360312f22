"""Visual entailment on SNLI-VE (paper §4.2.3, Table 10), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/snli_ve.py --workdir=runs/snli_ve \
        --config.data.dataset.path=snli_ve/snli_ve_train.jsonl --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.train --config=configs/adapt/snli_ve.py:size=laptop --workdir=runs/entailment

docs/adaptation.md says where the files lie. The second needs none: statements on half-covered digit scenes, from
runs/quickstart. The hypothesis alone is the text: the premise's caption is not used.
"""

from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    laptop = {"task": "entailment", "steps": 1_600, "length": 16, "generative_weight": 2.0}
    return adaptation.adapted("entailment", arg, "snli_ve", datasets.data("snli_ve"), laptop)
