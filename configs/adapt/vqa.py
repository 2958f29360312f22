"""Visual question answering on VQA v2 (paper §4.2.3, Table 10), from a pretrained CoCa.

    python -m coca_jax.train --config=configs/adapt/vqa.py --workdir=runs/vqa \
        --config.data.dataset.path=vqa/v2_OpenEnded_mscoco_train2014_questions.json --config.train.init_from=runs/coca_giant_576
    python -m coca_jax.train --config=configs/adapt/vqa.py:size=laptop --workdir=runs/questions

docs/adaptation.md says where the files lie. The second needs none: questions on digit scenes, from runs/quickstart.
"""

from coca_jax.presets import adaptation, datasets


def get_config(arg=None):
    laptop = {"task": "questions", "steps": 2_560, "length": 24, "encoder_learning_rate": 5e-3}
    config = adaptation.adapted("vqa", arg, "vqa", datasets.data("vqa_v2"), laptop)
    if config.data.dataset.format != "digit_scenes":
        config.objective.head.classes = 3_129  # the most frequent answers of the training questions
    return config
