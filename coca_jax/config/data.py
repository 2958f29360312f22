"""Config of a run's data: one source, or a mixture of several; a source is a dataset, its augmentation and its share."""

import dataclasses

from coca_jax.config.fields import choice, count, location, number

SHARD_ENDINGS = {  # of the shards' names, by format
    "tars": (".tar",),
    "tfrecords": (".tfrecord", ".tfrec"),
    "array_records": (".array_record", ".arrayrecord"),
    "parquet": (".parquet", ".pq"),
}


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Where a dataset's records lie, which of them belong to which split, and what in them is image, caption and label."""

    format: str = choice("digit_scenes", "tars", "folder", "tfds", "tfrecords", "array_records", "parquet")
    # Of digit_scenes: the scenes with their captions, or a task made of them; see data/digit_scenes/tasks.py.
    task: str = choice("captions", "digits", "questions", "entailment", "pairs", "actions")
    # A folder, a file of it, or a manifest (.csv, .tsv, .jsonl, .json); on a disk or in a bucket; digit_scenes needs none.
    path: str = location()
    # Of a manifest: a record for each image, with all of its rows, or one for each row (a question, a statement, …).
    records: str = choice("images", "rows")
    # Patterns of file names below `path`; tfds: names of splits, where ("*",) is "train".
    train_files: tuple[str, ...] = ("*",)
    evaluation_files: tuple[str, ...] = ()  # the same for the held-out records
    exclude: tuple[str, ...] = ()  # train records whose metadata has "field=value" are left out
    exclude_keys: str = location()  # a file of the keys of train records to leave out, as `tools dedup` writes it
    only: tuple[str, ...] = ()  # of both splits, only records whose metadata has one of these "field=value"; empty: all
    holdout: float = number(0.1, at_least=0, below=1)  # share held out if no evaluation_files are named; 0: all train
    # Instead of a share: held out are the records whose metadata has one of these, such as ("split=test",); others train.
    holdout_where: tuple[str, ...] = ()
    # Text
    text_fields: tuple[str, ...] = ()  # metadata or features that hold captions; empty: the usual names, see fields.py
    caption_separator: str = ""  # the text between several captions in one value; "json": the value is a JSON list
    clean: str = choice("spaces", "alt_text")  # of captions; see data/text/captions.py
    # Metadata or feature with a class's number or name, or several of them: the text is then made from prompts.
    label_field: str = ""
    class_names: str = location()  # a file with the class names in the order of their numbers; tfds knows its own
    # With a label_field: one is drawn, and the class name put into it. ("FILE",) reads them: see data/text/class_names.py.
    prompts: tuple[str, ...] = location(("{}",))
    # Images
    # Feature of the encoded image, or column of its file's name; empty: the usual names, see fields.py.
    image_field: str = ""
    second_image_field: str = ""  # of a manifest whose rows name pairs of images: the column of the second one's file
    frames: int = count(0, 0)  # of a clip; 0: one frame makes an image, drawn at random in training
    # Of classification by a head: its probabilities are the means over so many views of a held-out image or clip.
    evaluation_clips: int = count(1)  # sets of `frames`, which take turns
    evaluation_crops: int = count(1)  # squares of each, evenly spread over the longer side
    crop_border: int = count(0, 0)  # pixels cut off each side of a held-out image: ObjectNet's have a red border

    @property
    def evaluation_views(self) -> int:
        """Views of a held-out image or clip."""
        return self.evaluation_clips * self.evaluation_crops

    @property
    def holds_out(self) -> bool:
        """Whether any records are kept for the evaluation."""
        named = bool(self.evaluation_files or self.holdout_where)
        return self.format == "digit_scenes" or named or self.holdout > 0


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training images; see data/images/augment.py."""

    # The central square, a random square, a random part stretched to a square, or a warp for drawings.
    crop: str = choice("none", "random", "resized", "drawing")
    crop_area: float = number(0.35, above=0, at_most=1)  # crop = resized: the least part of the image's area
    mirror: bool = False  # half of the images left to right: only where no caption mentions left and right
    randaugment_layers: int = count(0, 0)  # operations drawn for each image (arXiv 1909.13719); 0: none
    randaugment_magnitude: int = number(10, at_least=0, at_most=30)  # 10 is what AutoAugment called the maximum


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A dataset as a part of the training data."""

    share: float = number(1.0, above=0)  # of every batch, in proportion to the other sources' shares
    dataset: DatasetConfig = DatasetConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run: one dataset, or a mixture of several sources."""

    name: str = ""  # the dataset's name in metrics; empty: its format's
    dataset: DatasetConfig = DatasetConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    # By name, instead of the three above; `source()` makes an entry of a config file.
    mixture: dict[str, SourceConfig] = dataclasses.field(default_factory=dict, hash=False)
    # Neighbouring records that are read together; 1: every record for itself; see data/pipeline/order.py.
    block: int = count(16)
    vocabulary: str = location()  # a SentencePiece model; empty: trained on the training captions at the first start
    long_text: str = choice("error", "truncate")  # a caption that exceeds model.text.length
    max_bad_ratio: float = number(0.01, at_least=0, at_most=1)  # of a source's records, unreadable, that stops the run

    @property
    def sources(self) -> dict[str, SourceConfig]:
        """The sources by the names that metrics give them: those of the mixture, or else the one dataset."""
        alone = SourceConfig(dataset=self.dataset, augmentation=self.augmentation)
        return dict(self.mixture) or {self.name or self.dataset.format: alone}

    def key(self, name: str) -> str:
        """Where the config has the source of that name: "data.mixture.web", or "data"."""
        return f"data.mixture.{name}" if self.mixture else "data"
