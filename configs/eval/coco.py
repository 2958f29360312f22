r"""COCO: retrieval over Karpathy's 5,000 test images with five captions each, and captioning of the same images.

    tfds build coco_captions
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/coco.py

A folder of images with captions.jsonl serves as well:

    --config.datasets.coco.dataset.format=folder --config.datasets.coco.dataset.path=FOLDER \
        "--config.datasets.coco.dataset.evaluation_files=('*',)" --config.datasets.coco.captioning.image_id=image_id

So does Karpathy's own file beside COCO's train2014/ and val2014/, with `dataset.path=dataset_coco.json`,
`captioning.image_id=cocoid` and `"dataset.only=('split=test',)"`; and all of val2017, with
`dataset.path=annotations/captions_val2017.json`, `captioning.image_id=image_id` and no `only`.

METEOR and SPICE need Java (SPICE one of version 8 to 14, which JAVA_HOME may name) and `pip install ".[captioning]"`, and
report what else they lack: `"--config.datasets.coco.captioning.scores=('bleu','rouge_l','cider','meteor','spice')"`.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    coco = config_lib.evaluation_dataset(
        dataset={"format": "tfds", "path": "coco_captions", "evaluation_files": ("test",)},
        tasks=("retrieval", "captioning"),
        retrieval={"captions_per_image": 5, "match": "image"},
        captioning={"image_id": "image/id"},
        download="tfds build coco_captions",
    )
    return config_lib.evaluation_config(coco=coco)
