"""Contradictions between the keys of a config: each is one sentence, raised before anything compiles."""

import dataclasses
from collections.abc import Container, Iterable, Iterator
from typing import Any

from coca_jax.config.data import DataConfig, DatasetConfig
from coca_jax.config.evaluation import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.config.fields import differences, flattened
from coca_jax.config.model import ModelConfig
from coca_jax.config.training import Config, ObjectiveConfig
from coca_jax.errors import CocaError

_Rules = Iterator[tuple[object, str]]  # (true if the rule is broken, the sentence of the error)


def check(config: Config, *, reads_data: bool) -> None:
    """Refuses a config whose keys contradict each other, or that lacks the path of records that are to be read.

    Raises:
      CocaError: the first contradiction.
    """
    _enforce(_model_rules(config.model))
    _enforce(_objective_rules(config.objective))
    batch, parts = config.train.batch_size, config.train.microbatches
    if batch % parts:
        raise CocaError(f"train.microbatches = {parts} does not divide train.batch_size = {batch}: change one of them")
    _enforce(_data_rules(config.data, reads_data))
    if reads_data and config.model.image.kind == "precomputed":
        _enforce(_token_rules(config.data))
    check_evaluation(config.evaluation, config.data.sources, "evaluation.datasets", reads_data=reads_data)


def check_evaluation(config: EvaluationConfig, own: Container[str], where: str, *, reads_data: bool = True) -> None:
    """Refuses evaluations that contradict themselves, and names that would give two metrics the same key.

    Args:
      config: the evaluations.
      own: names of a run's own sources.
      where: the place of the datasets in the config.
      reads_data: whether their paths are needed.

    Raises:
      CocaError: the first contradiction.
    """
    for name, one in config.datasets.items():
        if name in own:
            raise CocaError(f"{where} has {name!r}, which is the name of the run's own data, too: rename one")
        if one.group in config.datasets or one.group in own:
            raise CocaError(f"the group {one.group!r} of the evaluation {name!r} is a dataset's name, too: rename one")
        _enforce(_evaluation_rules(one, f"{where}.{name}", reads_data))


def _enforce(rules: Iterable[tuple[object, str]]) -> None:
    for broken, message in rules:
        if broken:
            raise CocaError(message)


def _model_rules(model: ModelConfig) -> _Rules:
    image, key = model.image, f"model.image.patch = {model.image.patch}"
    convolutions, stored = image.kind == "convnet" or image.stem == "conv", image.kind == "precomputed"
    yield (
        model.width % model.heads,
        f"model.heads = {model.heads} does not divide model.width = {model.width}: change one of them",
    )
    yield (
        image.size % image.patch and not stored,
        f"{key} does not divide model.image.size = {image.size}: change one of them",
    )
    yield (
        convolutions and (image.patch < 2 or image.patch.bit_count() > 1),
        f"{key} is not a power of two: convolutions of stride 2 need one",
    )
    yield stored and not image.tokens, "model.image.kind = precomputed needs model.image.tokens: tokens of each image"


def _objective_rules(objective: ObjectiveConfig) -> _Rules:
    weights = objective.pretraining
    any_loss = weights.contrastive_weight or weights.captioning_weight or weights.unimodal_language_model_weight
    yield not any_loss, "every weight of config.objective.pretraining is 0: set at least one of them"


def _data_rules(data: DataConfig, reads_data: bool) -> _Rules:
    if data.mixture:
        alone = DataConfig(name=data.name, dataset=data.dataset, augmentation=data.augmentation)
        yield _unused("data", differences(alone), "beside data.mixture, whose sources have such keys: set it there")
    frames = next(iter(data.sources.values())).dataset.frames
    for name, one in data.sources.items():
        where, key, dataset = data.key(name), f"{data.key(name)}.dataset", one.dataset
        yield from _dataset_rules(where, dataset, dataclasses.replace(one, share=1.0))
        place = f"{key}.format = {dataset.format} needs a folder: pass --config.{key}.path=FOLDER"
        yield reads_data and _lacks_path(dataset), place
        yield (
            dataset.frames != frames,
            f"{key}.frames = {dataset.frames} is not that of the other sources: a batch is all images, or all clips of the "
            "same number of frames",
        )
        if not dataset.label_field:
            reason = f"without {key}.label_field: name the metadata with the class there"
            yield _unused(key, _among(differences(dataset), "class_names", "prompts"), reason)


def _token_rules(data: DataConfig) -> _Rules:
    for name, one in data.sources.items():
        key, changed = data.key(name), differences(one.augmentation)
        yield (
            one.dataset.format == "digit_scenes" or one.dataset.frames,
            f"model.image.kind = precomputed takes stored tokens, and {key}.dataset draws scenes or has frames: name records "
            "whose images are .npy files",
        )
        yield _unused(
            f"{key}.augmentation", changed, "on the stored tokens of model.image.kind = precomputed: change that"
        )


def _dataset_rules(where: str, dataset: DatasetConfig, config: Any) -> _Rules:
    """Rules of the dataset of a part of the config, which lies at `where`."""
    if dataset.format == "digit_scenes":
        reason = f"on digit_scenes, which are generated: set {where}.dataset.format, such as folder"
        yield _unused(where, differences(config), reason)
    files = len(dataset.prompts) == 1
    yield (
        not files and not (dataset.prompts and all("{}" in prompt for prompt in dataset.prompts)),
        f"{where}.dataset.prompts needs templates with {{}} for the class name, such as 'a photo of a {{}}.', or one file",
    )


def _lacks_path(dataset: DatasetConfig) -> bool:
    return dataset.format != "digit_scenes" and not dataset.path


def _among(changes: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name in names}


def _unused(where: str, changes: dict[str, Any], reason: str) -> tuple[bool, str]:
    """The rule that none of the keys below `where` is changed, since that would have no effect."""
    names = list(flattened(changes))
    return bool(names), f"{where}.{names[0] if names else ''} has no effect {reason}, or leave it out"


def _evaluation_rules(one: EvaluationDatasetConfig, where: str, reads_data: bool) -> _Rules:
    dataset, classification, tasks = one.dataset, one.classification, ", ".join(one.tasks)
    classifies = not {"classification", "likelihood_classification"}.isdisjoint(one.tasks)
    described, several = classification.described_by, len(classification.fields) > 1
    key, keys = f"{where}.dataset", f"{where}.classification"
    own = dataclasses.replace(dataset, evaluation_files=())  # which differ from the defaults in any case
    yield from _dataset_rules(where, dataset, dataclasses.replace(EvaluationDatasetConfig(), dataset=own))
    get = f" ({one.download} gets the records)" if one.download else ""
    yield reads_data and _lacks_path(dataset), f"{where} needs its records: pass --config.{key}.path=FOLDER{get}"
    if not described:
        training = _among(differences(own), "train_files", "exclude", "exclude_keys")
        yield _unused(key, training, f"on an evaluation, as it chooses training records: set {key}.only")
    if dataset.evaluation_files:
        share = _among(differences(own), "holdout")
        yield _unused(key, share, f"beside {key}.evaluation_files: set that to ()")
    yield not one.tasks, f"{where}.tasks is empty: name what is measured, such as ('retrieval',)"
    yield (
        dataset.format == "tfds" and "*" in dataset.evaluation_files,
        f"{key}.evaluation_files is {dataset.evaluation_files}, which means the split train: name another, such as ('test',)",
    )
    yield (
        classification.class_subset and one.examples,
        f"{keys}.class_subset takes the classes that occur, of which {where}.examples = {one.examples} records may lack some: "
        "set one of the two to its default",
    )
    yield (
        classifies and not (dataset.format == "digit_scenes" or classification.fields or dataset.label_field),
        f"{where} is to be classified: name the metadata with a record's class as {key}.label_field",
    )
    prompt = classification.likelihood_prompt
    yield "{}" not in prompt, f"{keys}.likelihood_prompt needs a {{}} where the class name goes"
    yield (
        "video_retrieval" in one.tasks and not dataset.frames,
        f"{where} asks for video_retrieval: set {key}.frames to how many of a clip's frames count, such as 16",
    )
    yield (
        dataset.frames and set(one.tasks) != {"video_retrieval"},
        f"{key}.frames makes clips of its records, on which only video_retrieval can be measured",
    )
    yield (
        dataset.class_names and several,
        f"{key}.class_names names the classes of one field: set {keys}.fields to that, or leave class_names out",
    )
    both = f"{key}.class_names and {keys}.described_by both name the classes: leave one of them out"
    yield described and dataset.class_names, both
    yield (
        described and "classification" not in one.tasks,
        f"{keys}.described_by has no effect on {tasks}: add the task classification, or leave it out",
    )
    yield (
        described and dataset.evaluation_files == ("*",),
        f"{keys}.described_by takes names from records that are not evaluated: name fewer {key}.evaluation_files",
    )
