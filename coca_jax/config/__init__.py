"""Frozen dataclasses: the one source of every default, and their strict conversion to and from ConfigDict.

`default()` gives the `ConfigDict` that `configs/*.py` change and that `--config.…` flags override;
`from_config_dict` turns it back into a `Config`, refusing unknown keys, wrong types and contradictions before
anything compiles. Sources of the defaults: the paper's §4.1 and Table 1, and for what it leaves open Google's
public code (see docs/decisions.md).
"""

import dataclasses
import difflib
import re
import typing
from typing import Any

import ml_collections

from coca_jax.errors import CocaError


def _choice(default: str, *others: str) -> Any:
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})


def _count(default: int, minimum: int = 1) -> Any:
    return dataclasses.field(default=default, metadata={"minimum": minimum})


@dataclasses.dataclass(frozen=True)
class ImageEncoderConfig:
    """Images [B, size, size, 3] to tokens [B, N, width]."""

    kind: str = _choice("vit", "convnet", "precomputed")
    size: int = _count(288)  # pixels a side
    patch: int = _count(18)  # pixels a side of one token's receptive stride; a power of two where stem = conv
    stem: str = _choice("patch", "conv")  # one linear patch projection, or log2(patch) stride-2 convolutions
    layers: int = _count(12)
    mlp: int = _count(3072)
    position_scale: float = 0.02  # standard deviation of fresh position embeddings
    tokens: int = 0  # kind = precomputed only: how many tokens an image has


@dataclasses.dataclass(frozen=True)
class PoolerConfig:
    """Attentional poolers (paper §3.2, §4.3): generative queries for the decoder, one contrastive query."""

    kind: str = _choice("cascade", "parallel")
    queries: int = 256  # generative queries; 0: the decoder attends to the encoder's tokens themselves
    hidden_multiple: int = _count(4)  # attention width as a multiple of the model's


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoupled decoder: unimodal layers, then multimodal layers of self-attention, cross-attention, FFN."""

    vocabulary_size: int = _count(64_000)
    length: int = 64  # tokens with BOS and EOS, without CLS
    unimodal_layers: int = _count(12)
    multimodal_layers: int = _count(12)
    mlp: int = _count(3072)
    tied_softmax: bool = False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    width: int = _count(768)
    heads: int = _count(12)
    image: ImageEncoderConfig = ImageEncoderConfig()
    pooler: PoolerConfig = PoolerConfig()
    text: TextConfig = TextConfig()
    logit_cap: float = 50.0  # attention logits become cap·tanh(logits / cap); 0: no cap
    kernel_variance: float = 0.5  # of fresh kernels, as a multiple of 2 / (inputs + outputs)
    dtype: str = _choice("bfloat16", "float32")  # of the computation; parameters are float32
    # What the backward pass keeps of each block: all, matrix products, those of attention alone, nothing.
    remat: str = _choice("none", "dots", "attention", "full")

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels after each convolution of a conv stem: half as many before each halving of the picture, at least 16."""
        if self.image.kind == "precomputed" or (self.image.kind == "vit" and self.image.stem != "conv"):
            return ()
        steps = self.image.patch.bit_length() - 1
        return tuple(max(self.width >> (steps - 1 - step), 16) for step in range(steps))


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the paper's Eq. 4 and of two optional losses; a weight of 0 removes that branch's compute."""

    contrastive_weight: float = 1.0
    captioning_weight: float = 2.0
    unimodal_language_model_weight: float = 0.0
    prefix_captioning: bool = False  # give a random prefix of each caption, count only its continuation
    initial_temperature: float = 0.07


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    name: str = _choice("adafactor", "adamw", "muon")
    peak_learning_rate: float = 8e-4
    warmup_fraction: float = 0.02  # of all steps
    schedule: str = _choice("linear", "cosine", "constant")  # after the warm-up, to zero
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.01  # decoupled
    clip_norm: float = 0.0  # global gradient norm; 0: no clipping
    ema_decay: float = 0.0  # of the parameters that evaluations use; 0: no average is kept


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Where one set's records lie, and how each becomes a picture and a text."""

    format: str = _choice("digit_scenes", "tars", "folder", "tfds", "tfrecords", "array_records")
    path: str = ""  # a folder, or a manifest (.jsonl, .csv, .json); on a disk or in a bucket; digit_scenes needs none
    train_files: tuple[str, ...] = (
        "*",
    )  # patterns of file names below `path`; tfds: names of splits, ("*",) is "train"
    evaluation_files: tuple[str, ...] = ()  # the same for the held-out records
    exclude: tuple[str, ...] = ()  # train records whose metadata has "field=value" are left out
    exclude_keys: str = ""  # a file with the keys of train records to leave out, one a line, as `data dedup` writes it
    only: tuple[str, ...] = ()  # of both splits, only records whose metadata has one of these "field=value"; empty: all
    holdout: float = 0.1  # share of the records held out where no evaluation_files are named; 0: all of them train
    # Text
    text_fields: tuple[str, ...] = ()  # metadata or features that hold captions; empty: the usual names, see records.py
    clean: str = _choice("spaces", "alt_text")  # of captions; see data/texts.py
    label_field: str = (
        ""  # metadata or feature with a class's number or name, or several: the text is made from prompts
    )
    class_names: str = ""  # a file with the classes' names in the order of their numbers; tfds knows its own
    # With a label_field: one is drawn, and the class's name put into it. ("FILE",) reads them: see data/class_files.py.
    prompts: tuple[str, ...] = ("{}",)
    # Pictures
    image_field: str = ""  # feature of the encoded picture; empty: "image", "jpg", "png", …
    augment: str = _choice("none", "crop", "drawing")  # of training pictures; see data/views.py
    mirror: bool = False  # half of the training pictures left to right: only where no caption speaks of left and right
    randaugment_layers: int = _count(0, 0)  # operations drawn for each training picture (arXiv 1909.13719); 0: none
    randaugment_magnitude: int = _count(10, 0)  # 0 to 30, where 10 is what AutoAugment called the maximum
    frames: int = _count(0, 0)  # of a clip; 0: one frame makes a picture, drawn at random in training
    crop_border: int = _count(0, 0)  # pixels cut off each side of a held-out picture: ObjectNet's bear a red border

    @property
    def holds_out(self) -> bool:
        """Whether any records are kept for the evaluation."""
        return self.format == "digit_scenes" or bool(self.evaluation_files) or self.holdout > 0


@dataclasses.dataclass(frozen=True)
class SourceConfig(DatasetConfig):
    """One set of a mixture."""

    share: float = 1.0  # of every batch, in proportion to the other sources' shares


@dataclasses.dataclass(frozen=True)
class DataConfig(DatasetConfig):
    """The data of a run: one set, or a mixture of several."""

    name: str = ""  # the set's name in metrics; empty: the task's
    # By name; then the keys of one set, `task` to `frames`, are not used. `source()` makes an entry of a config file.
    mixture: dict[str, SourceConfig] = dataclasses.field(default_factory=dict, hash=False)
    block: int = _count(
        16
    )  # neighbouring records that are read together; 1: every record for itself; see data/order.py
    vocabulary: str = ""  # a SentencePiece model; empty: trained on the training captions at the first start
    long_text: str = _choice("error", "truncate")  # a caption that exceeds model.text.length
    max_bad_ratio: float = 0.01  # share of a source's records, unreadable, that stops the run

    @property
    def sources(self) -> dict[str, DatasetConfig]:
        """The sets by the names that metrics give them: those of the mixture, or else this one."""
        return dict(self.mixture) or {self.name or self.format: self}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; their product is the number of devices."""

    data: int = _count(0, 0)  # copies of the model; 0: all devices that the other axes leave
    fsdp: int = _count(0, 0)  # devices that share one copy; 0: chosen, see distributed.mesh
    tensor: int = _count(1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    steps: int = _count(500_000)
    batch_size: int = _count(65_536)  # pairs a step, over all devices
    microbatches: int = _count(
        1
    )  # parts of the batch that are worked through one after another, with the same gradient
    init_from: str = ""  # a run's folder or one of its checkpoints, whose parameters a new run starts from, at step 0
    seed: int = 0
    log_every: int = _count(10)
    checkpoint_every: int = _count(1_000)
    keep_checkpoints: int = _count(2)
    evaluate_every: int = 0  # 0: only after the last step
    mesh: MeshConfig = MeshConfig()
    tensorboard: bool = True


EVALUATION_TASKS = ("retrieval", "video_retrieval", "classification", "likelihood_classification", "captioning")
CAPTION_SCORES = ("bleu", "rouge_l", "cider", "meteor", "spice")


@dataclasses.dataclass(frozen=True)
class EvaluationDatasetConfig(DatasetConfig):
    """One evaluation by name: where its records lie, and what is asked of the model on them."""

    evaluation_files: tuple[str, ...] = ("*",)
    tasks: tuple[str, ...] = ("retrieval", "captioning")  # of EVALUATION_TASKS
    examples: int = _count(0, 0)  # records, spread evenly over the set; 0: all of them
    download: str = ""  # a command or an address that gets the records, for the error where they are missing
    group: str = ""  # sets of one group also give the mean of their metrics, under this name
    long_text: str = _choice("truncate", "error")  # a text that exceeds what the model reads
    # Retrieval
    captions_per_image: int = _count(0, 0)  # the first so many are ranked; 0: all
    match: str = _choice("meaning", "image")  # what is right: what says the same, or only the image's own (COCO)
    # Captioning
    caption_scores: tuple[str, ...] = ("bleu", "rouge_l", "cider")  # and "meteor", "spice", which need Java
    caption_prompt: str = ""  # what each caption begins with
    beams: int = _count(0, 0)  # 0: greedy
    image_id: str = "image_id"  # metadata with the image's number, for the results file of COCO's and NoCaps' servers
    # Classification; `label_field`, `class_names` and `prompts` are DatasetConfig's
    classify: tuple[str, ...] = ()  # several metadata fields, each a classification of its own name; empty: label_field
    class_ids: str = ""  # a file (or folder of class folders) with the numbers in class_names of labels such as wnids
    class_subset: bool = False  # only classes that occur among the set's records are candidates
    candidate_files: tuple[str, ...] = ()  # without class_names: records whose labels are candidates too
    # Metadata of the set's training records (`train_files` less `evaluation_files` and `exclude`), such as "species"
    # where families are asked for: instead of its own name a class has those of its members, whose probabilities add up.
    described_by: str = ""
    likelihood_prompt: str = "{}"  # the caption whose likelihood is a label's score
    likelihood_per_token: bool = False  # whether that is divided by the caption's number of tokens


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated in training and after it; `configs/eval/*.py` hold such configs for `coca_jax.evaluate`."""

    examples: int = _count(1_000)  # of each of the run's own held-out sets
    batch_size: int = _count(100)
    gallery: int = 24  # held-out pictures that the report shows
    # More sets, by name. `held_out()` makes an entry of a config file.
    sets: dict[str, EvaluationDatasetConfig] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Config:
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


# Table 1. The image encoder and both decoder halves share width and heads.
_VARIANTS = {
    "base": dict(width=768, heads=12, image=(12, 3072), text=(12, 3072)),
    "large": dict(width=1024, heads=16, image=(24, 4096), text=(12, 4096)),
    "giant": dict(width=1408, heads=16, image=(40, 6144), text=(18, 5632)),
}


def variant(name: str) -> ModelConfig:
    """The paper's base, large or giant (Table 1) at 288 pixels and patch 18.

    Raises:
      CocaError: there is no variant of that name.
    """
    if name not in _VARIANTS:
        raise CocaError(f"there is no model variant {name!r}: choose one of {', '.join(_VARIANTS)}")
    v = _VARIANTS[name]
    (image_layers, image_mlp), (text_layers, text_mlp) = v["image"], v["text"]
    return ModelConfig(
        width=v["width"],
        heads=v["heads"],
        image=ImageEncoderConfig(layers=image_layers, mlp=image_mlp),
        text=TextConfig(unimodal_layers=text_layers, multimodal_layers=text_layers, mlp=text_mlp),
    )


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """A locked ConfigDict with the same keys and values, nested as the dataclasses are."""
    result = ml_collections.ConfigDict()
    for field in dataclasses.fields(config):
        result[field.name] = _plain(getattr(config, field.name))
    return result.lock()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ml_collections.ConfigDict({key: _plain(inner) for key, inner in value.items()})
    return to_config_dict(value) if dataclasses.is_dataclass(value) else value


def default() -> ml_collections.ConfigDict:
    """Every default, as the ConfigDict that `configs/*.py` start from."""
    return to_config_dict(Config())


def source(**changes: Any) -> ml_collections.ConfigDict:
    """An entry of `config.data.mixture`: the defaults of `SourceConfig` with changes, all of them open to flags.

    config.data.mixture = {"web": source(format="tars", path="/mnt/web", share=3), "own": source(path="photos")}
    """
    values = to_config_dict(SourceConfig())
    values.update(changes)
    return values


def held_out(**changes: Any) -> ml_collections.ConfigDict:
    """An entry of `EvaluationConfig.sets`, as `source` makes those of a mixture."""
    values = to_config_dict(EvaluationDatasetConfig())
    values.update(changes)
    return values


def evaluation(**sets: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What a file of `configs/eval/` returns: the defaults of `EvaluationConfig` with these sets."""
    values = to_config_dict(EvaluationConfig())
    values.sets = ml_collections.ConfigDict(sets)
    return values


def evaluation_from_config_dict(values: Any) -> EvaluationConfig:
    """The `EvaluationConfig` of a file of `configs/eval/`, without a look at whether its sets can be found.

    Raises:
      CocaError: as `from_config_dict`.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    config = _build(EvaluationConfig, values, "config")
    _check_names(config, {})
    return config


def from_config_dict(values: Any) -> Config:
    """The `Config` that a ConfigDict (or nested dict) describes, checked for contradictions.

    Missing keys take their defaults, so that a checkpoint written before a key existed still loads.

    Raises:
      CocaError: an unknown key (the nearest one is named), a wrong type, a value outside its choices, or a contradiction.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    config = _build(Config, values, "config")
    _check(config)
    return config


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise CocaError(f"{where} is {values!r}: it must hold keys such as {where}.{dataclasses.fields(cls)[0].name}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in fields]
    if unknown:
        near = difflib.get_close_matches(unknown[0], fields, n=1, cutoff=0.0)[0]
        raise CocaError(f"{where} has no key {unknown[0]!r}: did you mean {where}.{near}?")
    converted = {}
    for key, value in values.items():
        name = f"{where}.{key}"
        if dataclasses.is_dataclass(types[key]):
            converted[key] = _build(types[key], value, name)
        elif typing.get_origin(types[key]) is dict:
            converted[key] = _build_each(typing.get_args(types[key])[1], value, name)
        else:
            converted[key] = _convert(value, types[key], name)
            choices = fields[key].metadata.get("choices")
            if choices and value not in choices:
                raise CocaError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
            minimum = fields[key].metadata.get("minimum")
            if minimum is not None and converted[key] < minimum:
                raise CocaError(f"{name} = {value} must be at least {minimum}")
    return cls(**converted)


def _build_each(cls: type, values: Any, where: str) -> dict[str, Any]:
    """A dict of dataclasses, whose keys are free but must be names."""
    if not isinstance(values, dict):
        raise CocaError(f"{where} is {values!r}: it must map names to keys of {cls.__name__}")
    for key in values:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(key)):
            raise CocaError(f"{where} has the name {key!r}: letters, digits, - and _ make a name")
    return {key: _build(cls, values[key], f"{where}.{key}") for key in sorted(values)}  # as ConfigDict orders them


def _convert(value: Any, wanted: Any, name: str) -> Any:
    if typing.get_origin(wanted) is tuple:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise CocaError(f'{name} is {value!r}: write a tuple of strings such as ("a", "b")')
    if wanted is float and type(value) in (int, float):
        return float(value)
    if type(value) is wanted:
        return value
    raise CocaError(f"{name} is {value!r}, a {type(value).__name__}: it must be a {wanted.__name__}")


def _check(config: Config) -> None:
    model, loss, data, train = config.model, config.loss, config.data, config.train
    image = model.image
    rules = [
        (
            model.width % model.heads == 0,
            f"model.heads = {model.heads} does not divide model.width = {model.width}: change one of them",
        ),
        (
            image.kind == "precomputed" or image.size % image.patch == 0,
            f"model.image.patch = {image.patch} does not divide model.image.size = {image.size}: change one of them",
        ),
        (
            (image.stem != "conv" and image.kind != "convnet")
            or (image.patch >= 2 and image.patch & (image.patch - 1) == 0),
            f"model.image.patch = {image.patch} is not a power of two: convolutions of stride 2 need one",
        ),
        (
            image.kind != "precomputed" or image.tokens > 0,
            "model.image.kind = precomputed needs model.image.tokens: set how many tokens each image has",
        ),
        (
            loss.contrastive_weight or loss.captioning_weight or loss.unimodal_language_model_weight,
            "every weight of config.loss is 0: set at least one of them",
        ),
        (loss.initial_temperature > 0, "loss.initial_temperature must be above 0"),
        (model.text.length >= 3, "model.text.length must be at least 3: BOS, one token, EOS"),
        (
            train.batch_size % train.microbatches == 0,
            f"train.microbatches = {train.microbatches} does not divide train.batch_size = {train.batch_size}: change one",
        ),
        (0 <= config.optimizer.ema_decay < 1, "optimizer.ema_decay must lie in [0, 1)"),
        (0 <= config.optimizer.warmup_fraction < 1, "optimizer.warmup_fraction must lie in [0, 1)"),
    ]
    for name, one in data.sources.items():
        where = f"data.mixture.{name}" if data.mixture else "data"
        rules += [
            (0 <= one.holdout < 1, f"{where}.holdout must be at least 0 and below 1"),
            (
                one.format == "digit_scenes" or one.path,
                f"{where}.format = {one.format} needs a folder: pass --config.{where}.path=FOLDER",
            ),
            (
                len(one.prompts) == 1 or (one.prompts and all("{}" in prompt for prompt in one.prompts)),
                f"{where}.prompts needs templates with {{}} where the class's name goes, such as 'a photo of a {{}}.', or one "
                "file of them",
            ),
            (
                one.frames == next(iter(data.sources.values())).frames,
                f"{where}.frames = {one.frames} is not what the other sources have: a batch is all pictures, or all clips of the "
                "same number of frames",
            ),
        ]
    rules += [(data.name not in data.mixture, f"data.name = {data.name} is one of its sources' names, too: rename one")]
    rules += [
        (one.share > 0, f"data.mixture.{name}.share must be above 0: remove a source to leave it out")
        for name, one in data.mixture.items()
    ]
    for holds, message in rules:
        if not holds:
            raise CocaError(message)
    _check_names(config.evaluation, data.sources)
    for name, one in config.evaluation.sets.items():
        check_held_out(one, f"evaluation.sets.{name}")


def _check_names(evaluation: EvaluationConfig, own: dict[str, DatasetConfig]) -> None:
    """Refuses names that would give two figures the same key; `own`: a run's own sets."""
    for name, one in evaluation.sets.items():
        if name in own:
            raise CocaError(f"evaluation.sets has {name!r}, which is the name of the run's own data, too: rename one")
        if one.group in evaluation.sets or one.group in own:
            raise CocaError(f"the group {one.group!r} of the evaluation {name!r} is a set's name, too: rename one")


def check_held_out(one: EvaluationDatasetConfig, where: str) -> None:
    """Refuses an evaluation that contradicts itself, or has no records; `where` is its place in the config."""
    classes = bool({"classification", "likelihood_classification"}.intersection(one.tasks))
    unknown = [task for task in one.tasks if task not in EVALUATION_TASKS]
    get = f" ({one.download} gets the records)" if one.download else ""
    rules = [
        (
            set(one.caption_scores) <= set(CAPTION_SCORES),
            f"{where}.caption_scores is {one.caption_scores}: choose among {', '.join(CAPTION_SCORES)}",
        ),
        (
            one.format != "tfds" or "*" not in one.evaluation_files,
            f"{where}.evaluation_files is {one.evaluation_files}, which means the split train: name the split, such as "
            "('test',)",
        ),
        (
            not (one.class_subset and one.examples),
            f"{where} asks for the classes that occur (class_subset), of which so few records as {where}.examples = "
            f"{one.examples} may not have all: set one of the two to its default",
        ),
        (one.tasks and not unknown, f"{where}.tasks is {one.tasks}: choose among {', '.join(EVALUATION_TASKS)}"),
        (
            one.format == "digit_scenes" or one.path,
            f"{where} needs its records: pass --config.{where}.path=FOLDER{get}",
        ),
        (
            not classes or one.format == "digit_scenes" or one.classify or one.label_field,
            f"{where} is to be classified: name the metadata with a record's class as {where}.label_field",
        ),
        (
            len(one.prompts) == 1 or (one.prompts and all("{}" in prompt for prompt in one.prompts)),
            f"{where}.prompts needs templates with {{}} where the class's name goes, such as 'a photo of a {{}}.', or one "
            "file of them",
        ),
        ("{}" in one.likelihood_prompt, f"{where}.likelihood_prompt needs a {{}} where the class's name goes"),
        (
            "video_retrieval" not in one.tasks or one.frames,
            f"{where} asks for video_retrieval: set {where}.frames to how many of a clip's frames count, such as 16",
        ),
        (
            not one.frames or set(one.tasks) <= {"video_retrieval"},
            f"{where}.frames makes clips of its records, of which only video_retrieval can be asked",
        ),
        (
            not one.classify or not one.class_names or len(one.classify) == 1,
            f"{where}.class_names names the classes of one field, but {where}.classify has {len(one.classify)}: make a set "
            "of each, or leave class_names out",
        ),
        (
            not one.described_by or not one.class_names,
            f"{where}.class_names and {where}.described_by both say what the classes are called: leave one of them out",
        ),
        (
            not one.described_by or "classification" in one.tasks,
            f"{where}.described_by has no effect on {', '.join(one.tasks)}: ask for classification, too, or leave it out",
        ),
        (
            not one.described_by or one.evaluation_files != ("*",),
            f"{where}.described_by takes names from records that are not evaluated, and {where}.evaluation_files leaves "
            "none: name fewer files there",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise CocaError(message)
