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
    def tars(**changes):
        return config_lib.held_out(format="tars", path=arg or "", evaluation_files=("twemoji-*",), **changes)

    every = ("*",)
    tasks = ("retrieval", "classification", "captioning")
    unseen = ("split=heldout_concept",)
    return config_lib.evaluation(
        emoji=tars(
            tasks=tasks,
            classify=("name", "group", "subgroup"),
            candidate_files=every,
            described_by="name",
            exclude=unseen,
        ),
        emoji_labels=tars(tasks=("classification",), classify=("group", "subgroup")),
        emoji_unseen=tars(tasks=tasks, classify=("name",), only=unseen),
        emoji_unseen_among_all=tars(tasks=("classification",), classify=("name",), only=unseen, candidate_files=every),
        emoji_likelihood=tars(tasks=("likelihood_classification",), classify=("group",)),
    )
