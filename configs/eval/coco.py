r"""COCO: retrieval over Karpathy's 5,000 test pictures with five captions each, and captioning of the same pictures.

    tfds build coco_captions
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/coco.py

A folder of pictures with captions.jsonl serves as well: `--config.sets.coco.format=folder --config.sets.coco.path=FOLDER
"--config.sets.coco.evaluation_files=('*',)" --config.sets.coco.image_id=image_id`. METEOR and SPICE need Java
(SPICE one of version 8 to 14, which JAVA_HOME may name) and `pip install ".[captioning]"`, and say what else they lack:
`"--config.sets.coco.caption_scores=('bleu','rouge_l','cider','meteor','spice')"`.

Karpathy's own file beside COCO's train2014/ and val2014/ serves, too: `format=folder`, `path=dataset_coco.json`,
`image_id=cocoid`, `"evaluation_files=('*',)"` and `"only=('split=test',)"`, each with --config.sets.coco. before it. For all of
val2017 it is `path=annotations/captions_val2017.json`, `image_id=image_id` and no `only`.
"""

from coca_jax import config as config_lib


def get_config(arg=None):
    coco = config_lib.held_out(
        format="tfds",
        path="coco_captions",
        evaluation_files=("test",),
        image_id="image/id",
        tasks=("retrieval", "captioning"),
        captions_per_image=5,
        match="image",
        download="tfds build coco_captions",
    )
    return config_lib.evaluation(coco=coco)
