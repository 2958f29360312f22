r"""NoCaps: captions for its validation set of 4,500 images, as a file for the evaluation server; and test alike.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/nocaps.py --datasets=nocaps \
        --config.datasets.nocaps.dataset.path=FOLDER

The references are private: nothing is scored here, and captions_nocaps_results.json is for the server. The path is the set's
info file (https://nocaps.org/download) beside images/, or a FOLDER of images with captions.jsonl, a row
for each: {"id": 0, "file_name": "0013ea2087020901.jpg"}. Where the captions are there, as "captions" of each row,
`"--config.datasets.nocaps.captioning.scores=('bleu','cider')"` scores them. Captions are searched with six beams.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    def split():
        return config_lib.evaluation_dataset(
            dataset={"format": "folder"},
            tasks=("captioning",),
            captioning={"image_id": "id", "scores": (), "beams": 6},
            download="https://nocaps.org/download",
        )

    return config_lib.evaluation_config(nocaps=split(), nocaps_test=split())
