"""Contradictions between the keys of a config: each is one sentence, raised before anything compiles."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from coca_jax.config.data import DataConfig, DatasetConfig
from coca_jax.config.evaluation import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.config.fields import differences, flattened
from coca_jax.config.model import ModelConfig
from coca_jax.config.training import Config, PretrainingConfig
from coca_jax.errors import CocaError

_Rules = Iterable[tuple[object, str]]  # (what must hold, the sentence where it does not)


def check(config: Config) -> None:
    """Refuses a config whose keys contradict each other.

    Raises:
      CocaError: the first contradiction.
    """
    train = config.train
    _enforce(_model_rules(config.model))
    if config.objective.name == "pretraining":
        _enforce(_pretraining_rules(config.objective.pretraining))
    _enforce(
        [
            (
                train.batch_size % train.microbatches == 0,
                f"train.microbatches = {train.microbatches} does not divide train.batch_size = {train.batch_size}: change one",
            )
        ]
    )
    _enforce(_data_rules(config.data))
    check_evaluation(config.evaluation, config.data.sources, "evaluation.datasets")


def check_places(config: Config) -> None:
    """Refuses a config that does not say where its records lie; for programs that read them.

    Raises:
      CocaError: a dataset has no path, or cannot give what the model takes.
    """
    for name, one in config.data.sources.items():
        key = f"{config.data.key(name)}.dataset"
        if not _has_place(one.dataset):
            raise CocaError(f"{key}.format = {one.dataset.format} needs a folder: pass --config.{key}.path=FOLDER")
    if config.model.image.kind == "precomputed":
        _enforce(_token_rules(config.data))
    check_evaluation_places(config.evaluation, "evaluation.datasets")


def check_evaluation(config: EvaluationConfig, own: Iterable[str], where: str) -> None:
    """Refuses evaluations that contradict themselves, and names that would give two metrics the same key.

    Args:
      config: the evaluations.
      own: names of a run's own sources.
      where: the place of the datasets in the config.

    Raises:
      CocaError: the first contradiction.
    """
    for name, one in config.datasets.items():
        if name in own:
            raise CocaError(f"{where} has {name!r}, which is the name of the run's own data, too: rename one")
        if one.group in config.datasets or one.group in own:
            raise CocaError(f"the group {one.group!r} of the evaluation {name!r} is a dataset's name, too: rename one")
        _enforce(_evaluation_rules(one, f"{where}.{name}"))


def check_evaluation_places(config: EvaluationConfig, where: str) -> None:
    """Refuses evaluation datasets without a path.

    Raises:
      CocaError: a dataset has no path.
    """
    for name, one in config.datasets.items():
        if not _has_place(one.dataset):
            get = f" ({one.download} gets the records)" if one.download else ""
            key = f"{where}.{name}"
            raise CocaError(f"{key} needs its records: pass --config.{key}.dataset.path=FOLDER{get}")


def _enforce(rules: _Rules) -> None:
    for holds, message in rules:
        if not holds:
            raise CocaError(message)


def _has_place(dataset: DatasetConfig) -> bool:
    return dataset.format == "digit_scenes" or bool(dataset.path)


def _model_rules(model: ModelConfig) -> _Rules:
    image = model.image
    convolutions = image.kind == "convnet" or image.stem == "conv"
    return [
        (
            model.width % model.heads == 0,
            f"model.heads = {model.heads} does not divide model.width = {model.width}: change one of them",
        ),
        (
            image.kind == "precomputed" or image.size % image.patch == 0,
            f"model.image.patch = {image.patch} does not divide model.image.size = {image.size}: change one of them",
        ),
        (
            not convolutions or (image.patch >= 2 and image.patch.bit_count() == 1),
            f"model.image.patch = {image.patch} is not a power of two: convolutions of stride 2 need one",
        ),
        (
            image.kind != "precomputed" or image.tokens > 0,
            "model.image.kind = precomputed needs model.image.tokens: set how many tokens each image has",
        ),
    ]


def _pretraining_rules(objective: PretrainingConfig) -> _Rules:
    weights = (objective.contrastive_weight, objective.captioning_weight, objective.unimodal_language_model_weight)
    return [(any(weights), "every weight of config.objective.pretraining is 0: set at least one of them")]


def _data_rules(data: DataConfig) -> _Rules:
    if data.mixture:
        alone = DataConfig(name=data.name, dataset=data.dataset, augmentation=data.augmentation)
        yield _unused(
            "data", differences(alone), "beside data.mixture, whose sources have keys of their own: set it there"
        )
    frames = next(iter(data.sources.values())).dataset.frames
    for name, one in data.sources.items():
        key, dataset = data.key(name), one.dataset
        own = {key: value for key, value in differences(one).items() if key != "share"}
        yield from _dataset_rules(key, dataset, own)
        yield (
            dataset.frames == frames,
            f"{key}.dataset.frames = {dataset.frames} is not what the other sources have: a batch is all images, or all "
            "clips of the same number of frames",
        )
        if not dataset.label_field:
            named = {name: value for name, value in differences(dataset).items() if name in ("class_names", "prompts")}
            yield _unused(
                f"{key}.dataset", named, f"without {key}.dataset.label_field: name the metadata with the class"
            )


def _dataset_rules(key: str, dataset: DatasetConfig, changes: dict[str, Any]) -> _Rules:
    """Rules of a dataset that the config has at `key`, where `changes` differs from the defaults."""
    if dataset.format == "digit_scenes":
        reason = f"on digit_scenes, which are generated: set {key}.dataset.format, such as folder"
        yield _unused(key, changes, reason)
    yield (
        len(dataset.prompts) == 1 or (bool(dataset.prompts) and all("{}" in prompt for prompt in dataset.prompts)),
        f"{key}.dataset.prompts needs templates with {{}} where the class name goes, such as 'a photo of a {{}}.', or one "
        "file of them",
    )


def _token_rules(data: DataConfig) -> _Rules:
    for name, one in data.sources.items():
        key, changed = data.key(name), differences(one.augmentation)
        yield (
            one.dataset.format != "digit_scenes" and not one.dataset.frames,
            f"model.image.kind = precomputed takes stored tokens, and {key}.dataset draws scenes or has frames: name records "
            "whose images are .npy files",
        )
        yield (
            not changed,
            f"model.image.kind = precomputed takes stored tokens, which {key}.augmentation.{next(iter(changed), '')} cannot "
            "change: leave it out",
        )


def _unused(key: str, changes: dict[str, Any], reason: str) -> tuple[bool, str]:
    """The rule that no key below `key` is changed, since it would have no effect."""
    names = list(flattened(changes))
    return not names, f"{key}.{names[0] if names else ''} has no effect {reason}, or leave it out"


def _evaluation_rules(one: EvaluationDatasetConfig, where: str) -> _Rules:
    dataset, classification, tasks = one.dataset, one.classification, ", ".join(one.tasks)
    classifies = bool({"classification", "likelihood_classification"}.intersection(one.tasks))
    key, keys = f"{where}.dataset", f"{where}.classification"
    changes = differences(dataclasses.replace(dataset, evaluation_files=()))
    yield from _dataset_rules(where, dataset, {"dataset": changes} if changes else {})
    if not classification.described_by:
        training = {
            name: value for name, value in changes.items() if name in ("train_files", "exclude", "exclude_keys")
        }
        yield _unused(key, training, f"on an evaluation, as it chooses training records: set {key}.only")
    if dataset.evaluation_files:
        share = {name: value for name, value in changes.items() if name == "holdout"}
        yield _unused(key, share, f"beside {key}.evaluation_files: set that to ()")
    yield from [
        (one.tasks, f"{where}.tasks is empty: name what is measured, such as ('retrieval',)"),
        (
            dataset.format != "tfds" or "*" not in dataset.evaluation_files,
            f"{key}.evaluation_files is {dataset.evaluation_files}, which means the split train: name the split, such as "
            "('test',)",
        ),
        (
            not (classification.class_subset and one.examples),
            f"{keys}.class_subset asks for the classes that occur, of which so few records as {where}.examples = "
            f"{one.examples} may not have all: set one of the two to its default",
        ),
        (
            not classifies or dataset.format == "digit_scenes" or classification.fields or dataset.label_field,
            f"{where} is to be classified: name the metadata with a record's class as {key}.label_field",
        ),
        (
            "{}" in classification.likelihood_prompt,
            f"{keys}.likelihood_prompt needs a {{}} where the class name goes",
        ),
        (
            "video_retrieval" not in one.tasks or dataset.frames,
            f"{where} asks for video_retrieval: set {key}.frames to how many of a clip's frames count, such as 16",
        ),
        (
            not dataset.frames or set(one.tasks) <= {"video_retrieval"},
            f"{key}.frames makes clips of its records, on which only video_retrieval can be measured",
        ),
        (
            not dataset.class_names or len(classification.fields) <= 1,
            f"{key}.class_names names the classes of one field, but {keys}.fields has {len(classification.fields)}: make a "
            "dataset of each, or leave class_names out",
        ),
        (
            not classification.described_by or not dataset.class_names,
            f"{key}.class_names and {keys}.described_by both name the classes: leave one of them out",
        ),
        (
            not classification.described_by or "classification" in one.tasks,
            f"{keys}.described_by has no effect on {tasks}: add the task classification, or leave it out",
        ),
        (
            not classification.described_by or dataset.evaluation_files != ("*",),
            f"{keys}.described_by takes names from records that are not evaluated, and {key}.evaluation_files leaves none: "
            "name fewer files there",
        ),
    ]
