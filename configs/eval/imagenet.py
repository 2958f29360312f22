r"""Zero-shot classification on ImageNet, -V2, -A, -R, -Sketch and ObjectNet, with CLIP's names and 80 prompts.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet.py:names=FOLDER --datasets=imagenet_v2,imagenet_r

FOLDER holds en_classnames.json and en_zeroshot_classification_templates.json of clip_benchmark. All but ObjectNet are in
TFDS: `tfds build imagenet_v2`, and so on (imagenet2012 needs the archives of image-net.org beside it). -A and -R have 200 of
the 1,000 classes: those that occur among the records are the candidates. ObjectNet is a folder:
`--config.datasets.objectnet.dataset.path`, `.dataset.class_names` and `.classification.class_ids` point to its images and
mappings, which leave its 113 classes in common with ImageNet; the red border of its images is cut off (`crop_border`). A folder
of class folders serves for each of them:

    --config.datasets.imagenet.dataset.format=folder --config.datasets.imagenet.dataset.path=… \
        --config.datasets.imagenet.dataset.label_field=folder "--config.datasets.imagenet.dataset.evaluation_files=('*',)"

for -A and -R together with `classification.class_ids`, which gives the wnids their numbers: ImageNet's own validation folder
serves.
"""

from coca_jax.presets import imagenet


def get_config(arg=None):
    return imagenet.imagenet_family(arg)
