r"""Zero-shot classification on ImageNet, -V2, -A, -R, -Sketch and ObjectNet, with CLIP's names and 80 prompts.

    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet.py:names=FOLDER --sets=imagenet_v2,imagenet_r

FOLDER holds en_classnames.json and en_zeroshot_classification_templates.json of clip_benchmark. All but ObjectNet are TFDS
sets: `tfds build imagenet_v2`, and so on (imagenet2012 needs the archives of image-net.org beside it). -A and -R have 200 of
the 1,000 classes: those that occur in the set are the candidates. ObjectNet is a folder: `--config.sets.objectnet.path`,
`.class_names` and `.class_ids` point to its images and mappings, which leave its 113 classes in common with ImageNet; the red
border of its pictures is cut off (`crop_border`). A folder of class folders serves for each of them:
`--config.sets.imagenet.format=folder --config.sets.imagenet.path=… --config.sets.imagenet.label_field=folder
"--config.sets.imagenet.evaluation_files=('*',)"`, for -A and -R together with `class_ids`, which gives the wnids their numbers:
ImageNet's own validation folder says them.
"""

from coca_jax.presets import imagenet as evaluation_recipes


def get_config(arg=None):
    return evaluation_recipes.imagenet_family(arg)
