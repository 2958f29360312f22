"""Adapts a run to classes, questions or clips of one's own, on a laptop or one accelerator.

    python -m coca_jax.train --config=configs/adapt/folder.py --workdir=runs/kinds \
        --config.train.init_from=runs/photos --config.data.dataset.path=FOLDER
    python -m coca_jax.train --config=configs/adapt/folder.py:task=questions …
    python -m coca_jax.train --config=configs/adapt/folder.py:task=clips,features=finetuned …

What FOLDER holds, or which file stands in its place:

    classes     CLASS/x.jpg; or in place of FOLDER a table with file_name and the class: --config.data.dataset.label_field=COLUMN
    questions   in place of FOLDER a table, such as questions.jsonl: {"file_name": "x.jpg", "question": "what is it?", "answer": "a cat"}
    clips       CLASS/x.mp4

The model is that of the run it starts from. A tenth of the records is held out, and measured in the course of training.
With frozen features, each image goes through the encoder once: of classes and clips, epochs after the first take seconds.
"""

from coca_jax.presets import adaptation


def get_config(arg=None):
    return adaptation.own_data(arg)
