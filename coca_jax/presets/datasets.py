"""Datasets of the field by name: how `config.data`, or an entry of `config.data.mixture`, differs from the defaults.

    --config=configs/small.py:coco_captions          a small model on COCO Captions
    --config=configs/coca_base.py:data=imagenet      the paper's base on ImageNet

Any key can be changed by a flag (`--config.data.dataset.path=…`). A dataset of one's own needs as few lines; see the README.
"""

import copy
from typing import Any

from coca_jax.errors import CocaError

# The plain prompt, and CLIP's seven that together do as well as its eighty (its notebook on ImageNet's prompts).
CLIP_PROMPTS = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def _captioned(**dataset: Any) -> dict[str, Any]:
    return {"dataset": dataset, "augmentation": {"crop": "random"}}


def _from_web(**dataset: Any) -> dict[str, Any]:
    return _captioned(clean="alt_text", **dataset)


def _labelled(**dataset: Any) -> dict[str, Any]:
    return {"dataset": {"prompts": CLIP_PROMPTS, **dataset}, "augmentation": {"crop": "random", "mirror": True}}


def _questions(**dataset: Any) -> dict[str, Any]:
    """A manifest with a question or a statement a row; images stay whole, as these may speak of any part, left or right."""
    return {"dataset": {"format": "folder", "records": "rows", **dataset}}


def _actions(**dataset: Any) -> dict[str, Any]:
    return {"dataset": {"format": "folder", **dataset}, "augmentation": {"crop": "random", "mirror": True}}


DATASETS: dict[str, dict[str, Any]] = {
    # Tars of img2dataset (CC3M, CC12M, LAION, DataComp, …): KEY.jpg, KEY.txt, KEY.json.
    "tars": _from_web(format="tars"),
    # A folder or manifest of one's own.
    "folder": _captioned(format="folder"),
    # tfds build coco_captions: COCO 2014, five captions an image, in Karpathy's splits.
    "coco_captions": _captioned(
        format="tfds", path="coco_captions", train_files=("train", "restval"), evaluation_files=("val",)
    ),
    # COCO or Flickr30k as downloaded: the path is Karpathy's dataset_coco.json, beside train2014/ and val2014/, or
    # dataset_flickr30k.json, beside flickr30k-images/. COCO's own captions_*.json is a "folder": see docs/data.md.
    "karpathy": _captioned(
        format="folder", text_fields=("sentences/raw",), only=("split=train", "split=restval"), holdout=0.01
    ),
    # Images, and captions.csv with the columns image and caption (Kaggle's captions.txt): five rows an image.
    "flickr30k": _captioned(format="folder", image_field="image", text_fields=("caption",)),
    # tfds build imagenet2012. Its own class names are WordNet's: name a file with words as data.dataset.class_names.
    "imagenet": _labelled(
        format="tfds",
        path="imagenet2012",
        train_files=("train",),
        evaluation_files=("validation",),
        label_field="label",
    ),
    # ImageNet's variants and other datasets of TFDS that have a label (cifar100, food101, imagenet_v2, …): set the path.
    "tfds_labels": _labelled(format="tfds", label_field="label"),
    # An image in a folder of its class's name: CLASS/x.jpg, as torchvision's ImageFolder reads them.
    "class_folders": _labelled(format="folder", label_field="folder"),
    # Drawings of Unicode concepts, a tar for each design team: four train, the fifth and 80 concepts never do.
    "emoji": {
        "dataset": {
            "format": "tars",
            "train_files": ("noto-*", "fluent-*", "emojitwo-*", "blobmoji-*"),
            "evaluation_files": ("twemoji-*",),
            "exclude": ("split=heldout_concept",),
        },
        "augmentation": {"crop": "drawing"},
    },
    # Caltech-101 as a table with the columns file_name, label and part (train or test), the image's folder beside it.
    "caltech101": {
        "dataset": {
            "format": "folder",
            "label_field": "label",
            "prompts": ("a photo of a {}.",),
            "holdout_where": ("part=test",),
        },
        "augmentation": {"crop": "resized", "mirror": True, "randaugment_layers": 2, "randaugment_magnitude": 9},
    },
    # TFDS' laion400m, whose images one downloads (img2dataset) before tfds build laion400m/images.
    "laion400m": _from_web(format="tfds", path="laion400m/images"),
    # TFDS' wit_kaggle, from the files of Kaggle's competition; rows without an image have a blank one and no address.
    # TFDS' wit has addresses of images and no images: download those with img2dataset and use "tars".
    "wit": _from_web(
        format="tfds",
        path="wit_kaggle/train_with_extended_features",
        train_files=("train_with_extended_features",),
        text_fields=("caption_reference_description", "caption_alt_text_description"),
        exclude=("metadata_url=",),
    ),
    # TFRecords of one's own with several texts an image, after the model of WebLI, which is neither public nor in TFDS.
    "webli": _from_web(format="tfrecords", text_fields=("alt_text", "title")),
    # https://github.com/vzhou842/easy-VQA: questions.json with rows [question, answer, number of the image].
    "easy_vqa": {"dataset": {"format": "folder", "image_field": "images/{2}.png", "text_fields": ("{0} {1}",)}},
    # The same, a record for each question; dataset.path is train/questions.json or test/questions.json.
    "easy_vqa_questions": _questions(image_field="images/{2}.png", text_fields=("{0}",), label_field="1"),
    # Datasets to adapt to, as they are downloaded: docs/adaptation.md has the place of each file.
    # v2_OpenEnded_mscoco_train2014_questions.json; ten answers a question, which its annotations beside it hold.
    "vqa_v2": _questions(text_fields=("question",), label_field="answers"),
    # snli_ve_train.jsonl: entailment, neutral or contradiction.
    "snli_ve": _questions(
        image_field="flickr30k-images/{Flickr30K_ID}.jpg", text_fields=("sentence2",), label_field="gold_label"
    ),
    # train.json: statements on pairs of images, True or False.
    "nlvr2": _questions(
        image_field="left_image", second_image_field="right_image", text_fields=("sentence",), label_field="label"
    ),
    # Kinetics-400, -600, -700: train.csv; clips that it lists and the disk lacks are left out.
    "kinetics": _actions(label_field="label", prompts=("a video of a person {}.",)),
    # trainingSet.csv, which has no header, and training/; validationSet.csv needs image_field="validation/{0}".
    "moments_in_time": _actions(image_field="training/{0}", label_field="1", prompts=("a video of {}.",)),
    # Clips whose label is the file's name; a frame drawn at random is the image, or with `frames` so many of them.
    "named_clips": _captioned(
        format="folder", label_field="stem", prompts=("a person signs {}.", "the sign for {}.", "{}")
    ),
}


def data(name: str) -> dict[str, Any]:
    """A dataset's keys of a source ("dataset", "augmentation"); raises CocaError with the list if there is no such one."""
    if name not in DATASETS:
        raise CocaError(f"there is no dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return copy.deepcopy(DATASETS[name])
