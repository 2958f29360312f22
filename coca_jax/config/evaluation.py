"""Config of evaluations: datasets by name, what is measured on each, and how; also the files of `configs/eval/`."""

import dataclasses

from coca_jax.config.data import DatasetConfig
from coca_jax.config.fields import choice, choices, count, counts, location, number

TASKS = (
    "retrieval",
    "video_retrieval",
    "classification",
    "likelihood_classification",
    "few_shot",
    "captioning",
    "head_classification",
    "vqa",
)
CAPTION_SCORES = ("bleu", "rouge_l", "cider", "meteor", "spice")


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Image-text and video-text retrieval."""

    captions_per_image: int = count(0, 0)  # the first so many are ranked; 0: all
    match: str = choice("meaning", "image")  # right is each text of the same meaning, or only the image's own (COCO)


@dataclasses.dataclass(frozen=True)
class CaptioningConfig:
    """Captions that the model generates."""

    scores: tuple[str, ...] = choices(CAPTION_SCORES, ("bleu", "rouge_l", "cider"))  # "meteor", "spice" need Java
    prompt: str = ""  # what each caption begins with
    beams: int = count(0, 0)  # 0: greedy
    image_id: str = "image_id"  # metadata with the image's number, for the results file of COCO's and NoCaps' servers


@dataclasses.dataclass(frozen=True)
class ClassificationConfig:
    """Zero-shot classification, by embeddings or likelihoods; label_field, class_names and prompts are the dataset's. By
    a head only `fields` is read."""

    # Metadata, each field a classification of its own name; empty: dataset.label_field. For head_classification they are
    # coarser classes: each is as probable as the head's classes that training records have beside it.
    fields: tuple[str, ...] = ()
    class_ids: str = location()  # a file or folder of class folders: the numbers in class_names of labels such as wnids
    class_subset: bool = False  # only classes that occur among the dataset's records are candidates
    candidate_files: tuple[str, ...] = ()  # without class_names: records whose labels are candidates too
    # Metadata of the dataset's training records (`train_files` less `evaluation_files` and `exclude`), such as "species"
    # where families are the classes: instead of its own name a class has those of its members, whose probabilities add up.
    described_by: str = ""
    likelihood_prompt: str = "{}"  # the caption whose likelihood is a label's score
    likelihood_per_token: bool = False  # whether that is divided by the caption's number of tokens


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Classification by a logistic regression on the embeddings of a few training images; the classes are those of
    `ClassificationConfig`, the training images those of the dataset's train split."""

    shots: tuple[int, ...] = counts((1, 5, 10, 20), 0)  # training images a class; 0: all of them (a linear probe)
    repeats: int = count(5)  # random draws of these images
    seed: int = number(0, at_least=0, below=2**32)
    examples: int = count(0, 0)  # training records to draw from, spread evenly over the split; 0: all of them
    logistic_c: float = number(1.0, above=0)  # inverse strength of the penalty, as scikit-learn's C


@dataclasses.dataclass(frozen=True)
class EvaluationDatasetConfig:
    """Held-out records, and the tasks that are measured on them."""

    dataset: DatasetConfig = DatasetConfig(evaluation_files=("*",))
    tasks: tuple[str, ...] = choices(TASKS, ("retrieval", "captioning"))
    examples: int = count(0, 0)  # records, spread evenly over the dataset; 0: all of them
    download: str = ""  # a command or an address that gets the records, for the error where they are missing
    group: str = ""  # datasets of one group also give the mean of their metrics, under this name
    long_text: str = choice("truncate", "error")  # a text that exceeds what the model reads
    retrieval: RetrievalConfig = RetrievalConfig()
    captioning: CaptioningConfig = CaptioningConfig()
    classification: ClassificationConfig = ClassificationConfig()
    few_shot: FewShotConfig = FewShotConfig()


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The evaluations during training and after it."""

    examples: int = count(1_000)  # of each of the run's own datasets
    batch_size: int = count(100)
    gallery: int = count(24, 0)  # held-out images that the report shows
    # More datasets, by name. `evaluation_dataset()` makes an entry of a config file.
    datasets: dict[str, EvaluationDatasetConfig] = dataclasses.field(default_factory=dict, hash=False)
