"""Evaluation datasets that files of `configs/eval/` share: the ImageNet family, as CLIP and CoCa are measured on it."""

from typing import Any

import ml_collections

from coca_jax import config as config_lib
from coca_jax.errors import CocaError

# name: (TFDS dataset, its split, whether only the classes that occur are candidates)
_FAMILY = {
    "imagenet": ("imagenet2012", "validation", False),
    "imagenet_v2": ("imagenet_v2", "test", False),
    "imagenet_a": ("imagenet_a", "test", True),
    "imagenet_r": ("imagenet_r", "test", True),
    "imagenet_sketch": ("imagenet_sketch", "test", False),
}
# ImageNet-C's corruptions, and AlexNet's mean error over the severities of each (arXiv 1903.12261 and its authors' code).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
SEVERITIES = range(1, 6)


def imagenet_family(arg: str | None) -> ml_collections.ConfigDict:
    """ImageNet and the datasets classified with its names; `arg` is "names=FOLDER" of clip_benchmark's two files."""
    folder = _folder(arg)
    datasets = {
        name: _imagenet(folder, tfds, split, class_subset=subset) for name, (tfds, split, subset) in _FAMILY.items()
    }
    objectnet = _classified(
        folder,
        format="folder",
        label_field="folder",
        class_names="mappings/folder_to_objectnet_label.json",
        crop_border=2,  # red; as wide as the authors' code has it
    )
    objectnet.classification.class_ids = "mappings/objectnet_to_imagenet_1k.json"
    objectnet.download = "https://objectnet.dev: dataset.path is its images, dataset.class_names and classification.class_ids are its mappings"
    return config_lib.evaluation_config(**datasets, objectnet=objectnet)


def imagenet_c(arg: str | None) -> ml_collections.ConfigDict:
    """15 corruptions in 5 severities, their mean and mCE; `arg` as for `imagenet_family`."""
    folder = _folder(arg)
    datasets = {
        f"imagenet_c_{kind}_{severity}": _imagenet(folder, f"imagenet2012_corrupted/{kind}_{severity}", "validation")
        for kind in ALEXNET_ERRORS
        for severity in SEVERITIES
    }
    for one in datasets.values():
        one.group = "imagenet_c"
    config = config_lib.evaluation_config(**datasets)
    config.gallery = 0  # 75 of them would make a page that no browser likes
    return config


def _folder(arg: str | None) -> str:
    key, _, folder = (arg or "names=.").partition("=")
    if key != "names" or not folder:
        raise CocaError(
            f"the config takes names=FOLDER and not {arg!r}: the folder of en_classnames.json and "
            "en_zeroshot_classification_templates.json"
        )
    return folder


def _imagenet(folder: str, tfds: str, split: str, *, class_subset: bool = False) -> ml_collections.ConfigDict:
    names = f"{folder}/en_classnames.json:imagenet1k"
    place = {"format": "tfds", "path": tfds, "evaluation_files": (split,)}
    one = _classified(folder, **place, label_field="label", class_names=names)
    one.classification.class_subset = class_subset
    one.download = f"tfds build {tfds}"
    return one


def _classified(folder: str, **dataset: Any) -> ml_collections.ConfigDict:
    """A classification with CLIP's 80 prompts."""
    prompts = (f"{folder}/en_zeroshot_classification_templates.json:imagenet1k",)
    return config_lib.evaluation_dataset(tasks=("classification",), dataset={"prompts": prompts, **dataset})
