"""Data sets of the field by name: what `config.data`, or an entry of `config.data.mixture`, says of them.

    --config=configs/small.py:coco_captions          a small model on COCO Captions
    --config=configs/coca_base.py:data=imagenet      the paper's base on ImageNet

Any key can be changed by a flag (`--config.data.path=…`). Of one's own set five lines say as much; see the README.
"""

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
_WEB = dict(augment="crop", clean="alt_text")
_LABELLED = dict(augment="crop", mirror=True, prompts=CLIP_PROMPTS)

SETS: dict[str, dict[str, Any]] = {
    # Tars of img2dataset (CC3M, CC12M, LAION, DataComp, …): KEY.jpg, KEY.txt, KEY.json.
    "tars": dict(format="tars", **_WEB),
    # A folder or manifest of one's own.
    "folder": dict(format="folder", augment="crop"),
    # tfds build coco_captions: COCO 2014, five captions a picture, in Karpathy's splits.
    "coco_captions": dict(
        format="tfds", path="coco_captions", train_files=("train", "restval"), evaluation_files=("val",), augment="crop"
    ),
    # COCO or Flickr30k as downloaded: data.path is Karpathy's dataset_coco.json, beside train2014/ and val2014/, or
    # dataset_flickr30k.json, beside flickr30k-images/. COCO's own captions_*.json is a "folder": see docs/data.md.
    "karpathy": dict(
        format="folder",
        text_fields=("sentences/raw",),
        only=("split=train", "split=restval"),
        holdout=0.01,
        augment="crop",
    ),
    # Pictures, and captions.csv with the columns image and caption (Kaggle's captions.txt): five rows a picture.
    "flickr30k": dict(format="folder", image_field="image", text_fields=("caption",), augment="crop"),
    # tfds build imagenet2012. Its own names of classes are WordNet's: name a file with words as data.class_names.
    "imagenet": dict(
        format="tfds",
        path="imagenet2012",
        train_files=("train",),
        evaluation_files=("validation",),
        label_field="label",
        **_LABELLED,
    ),
    # ImageNet's variants and other sets of TFDS that have a label (cifar100, food101, imagenet_v2, …): set data.path.
    "tfds_labels": dict(format="tfds", label_field="label", **_LABELLED),
    # A picture in a folder of its class's name: CLASS/x.jpg, as torchvision's ImageFolder reads them.
    "class_folders": dict(format="folder", label_field="folder", **_LABELLED),
    # TFDS' laion400m, whose pictures one downloads (img2dataset) before tfds build laion400m/images.
    "laion400m": dict(format="tfds", path="laion400m/images", **_WEB),
    # TFDS' wit_kaggle, from the files of Kaggle's competition; rows without a picture have a blank one and no address.
    # TFDS' wit has addresses of pictures and no pictures: download those with img2dataset and use "tars".
    "wit": dict(
        format="tfds",
        path="wit_kaggle/train_with_extended_features",
        train_files=("train_with_extended_features",),
        text_fields=("caption_reference_description", "caption_alt_text_description"),
        exclude=("metadata_url=",),
        **_WEB,
    ),
    # TFRecords of one's own with several texts a picture; WebLI, the model of it, is not public and no set of TFDS.
    "webli": dict(format="tfrecords", text_fields=("alt_text", "title"), **_WEB),
    # https://github.com/vzhou842/easy-VQA: questions.json with rows [question, answer, number of the picture].
    "easy_vqa": dict(format="folder", image_field="images/{2}.png", text_fields=("{0} {1}",)),
    # Clips whose label is the file's name; a frame drawn at random is the picture, as pretraining reads no clips.
    "named_clips": dict(
        format="folder", label_field="stem", prompts=("a person signs {}.", "the sign for {}.", "{}"), augment="crop"
    ),
}


def data(name: str) -> dict[str, Any]:
    """The keys of `DatasetConfig` in which a set differs from the defaults.

    Raises:
      CocaError: there is no such set; it lists them.
    """
    if name not in SETS:
        raise CocaError(f"there is no set {name!r}: choose one of {', '.join(SETS)}")
    return dict(SETS[name])
