"""Moments in Time by frozen features or finetuned (paper §4.2.1, Table 9), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/moments_in_time.py --workdir=runs/mit_frozen \
        --config.data.dataset.path=moments_in_time --config.train.init_from=runs/coca_giant_576

docs/adaptation.md says where the clips lie; `:size=laptop` is that of kinetics.py.
"""

from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    laptop = {"task": "actions", "steps": 800}
    data = datasets.data("moments_in_time")
    # The paper does not say how many frames: 16, as in its video retrieval.
    config = adaptation.adapted("classification", arg, "moments_in_time", data, laptop, frames=16)
    on_scenes = config.data.dataset.format == "digit_scenes"
    config.objective.head.frame_positions = on_scenes
    if not on_scenes:  # nor how many views of a held-out clip: as ViViT (arXiv 2103.15691)
        config.data.dataset.update(evaluation_clips=4, evaluation_crops=3)
    return config
