r"""Drawings of a design team that training never saw: by name, group and subgroup, retrieval, captions; and unseen concepts.

    python -m coca_jax.evaluate --checkpoint=runs/emoji --config=configs/eval/emoji.py:FOLDER_OF_TARS

`emoji` are the twemoji drawings of all concepts; the candidates by name are the names in all tars. Names of groups
stand in no text that trained, so a group is as probable as the names of its concepts together, of those that trained;
`emoji_labels` takes the names of the groups themselves. `emoji_unseen` are the 80 concepts that no team's drawings
taught, classified among themselves; `emoji_unseen_among_all` among all names. `emoji_likelihood` ranks the eight
groups by the likelihood of their names as captions.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    unseen = ("split=heldout_concept",)
    among_all = {"candidate_files": ("*",)}

    def tars(*tasks, classes, only=(), exclude=(), **classification):
        dataset = {"format": "tars", "path": arg or "", "evaluation_files": ("twemoji-*",)}
        return config_lib.evaluation_dataset(
            dataset={**dataset, "only": only, "exclude": exclude},
            tasks=tasks,
            classification={"fields": classes, **classification},
        )

    every = ("retrieval", "classification", "captioning")
    classes = ("name", "group", "subgroup")
    return config_lib.evaluation_config(
        emoji=tars(*every, classes=classes, described_by="name", exclude=unseen, **among_all),
        emoji_labels=tars("classification", classes=("group", "subgroup")),
        emoji_unseen=tars(*every, classes=("name",), only=unseen),
        emoji_unseen_among_all=tars("classification", classes=("name",), only=unseen, **among_all),
        emoji_likelihood=tars("likelihood_classification", classes=("group",)),
    )
