"""Captioning finetuned on MSCOCO (paper §4.2.3, Table 10), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/coco_captioning.py --workdir=runs/coco_captioning \
        --config.data.dataset.path=coco/dataset_coco.json --config.train.init_from=runs/coca_giant_576

The captioning loss alone is the paper's recipe; it costs the embeddings much of what they were (open_clip's B/32 fell from
63 % to 0.8 % on ImageNet by it). --config.objective.captioning.contrastive_weight=1 keeps them. The evaluation shows
retrieval beside the captions' scores, and at the start what it was before. `:size=laptop` needs no files.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    return adaptation.captioning(arg, "coco_captioning")
