"""Contradictions between the keys of a config: each is one sentence, raised before anything compiles."""

import dataclasses
from collections.abc import Container
from typing import Any

from coca_jax.config.data import DataConfig, DatasetConfig
from coca_jax.config.evaluation import EvaluationConfig, EvaluationDatasetConfig
from coca_jax.config.fields import differences, flattened
from coca_jax.config.model import ModelConfig
from coca_jax.config.training import Config
from coca_jax.errors import CocaError

_VIEWS = ("evaluation_clips", "evaluation_crops")
_SCENE_TASKS = {  # of the digit scenes, by objective
    "pretraining": ("captions", "actions"),
    "captioning": ("captions", "actions"),
    "classification": ("digits", "actions"),
    "vqa": ("questions",),
    "entailment": ("entailment",),
    "pairs": ("pairs",),
}


def check(config: Config, *, reads_data: bool, completed: bool = False) -> None:
    """Refuses a config whose keys contradict each other, or that lacks the path of records that are to be read.

    Args:
      completed: of an adaptation, whether its model is already the one of `train.init_from`, with the config's changes.

    Raises:
      CocaError: the first contradiction.
    """
    train, optimizer = config.train, config.optimizer
    if completed or config.objective.name == "pretraining" or not train.init_from:
        _check_model(config.model)
    _check_objective(config)
    unsaved = train.keep_best and (not train.evaluate_every or train.evaluate_every % train.checkpoint_every)
    _refuse(
        unsaved,
        "train.keep_best needs a checkpoint at each evaluation: make train.evaluate_every a multiple of "
        f"train.checkpoint_every = {train.checkpoint_every}",
    )
    both = optimizer.warmup_steps and optimizer.warmup_fraction
    _refuse(both, "optimizer.warmup_steps and optimizer.warmup_fraction are both set: set one of them to 0")
    _refuse_indivisible("train.batch_size", train.batch_size, "train.microbatches", train.microbatches)
    _check_data(config.data, reads_data)
    if reads_data and config.model.image.kind == "precomputed":
        _check_stored_tokens(config.data)
    check_evaluation(config.evaluation, config.data.sources, "evaluation.datasets", reads_data=reads_data)


def check_evaluation(config: EvaluationConfig, own: Container[str], where: str, *, reads_data: bool = True) -> None:
    """Refuses evaluations that contradict themselves, and names that would give two metrics the same key.

    Args:
      own: names of a run's own sources.
      where: the place of the datasets in the config.
      reads_data: whether their paths are needed.

    Raises:
      CocaError: the first contradiction.
    """
    for name, one in config.datasets.items():
        _refuse(name in own, f"{where} has {name!r}, which is the name of the run's own data, too: rename one")
        taken = one.group in config.datasets or one.group in own
        _refuse(taken, f"the group {one.group!r} of the evaluation {name!r} is a dataset's name, too: rename one")
        _check_evaluation_dataset(one, f"{where}.{name}", reads_data)


def _refuse(broken: object, message: str) -> None:
    if broken:
        raise CocaError(message)


def _refuse_indivisible(key: str, whole: int, parts_key: str, parts: int) -> None:
    _refuse(whole % parts, f"{parts_key} = {parts} does not divide {key} = {whole}: change one of them")


def _refuse_changes(where: str, config: Any, reason: str, *names: str) -> None:
    """Refuses keys below `where` (of these names, or any) that are not their defaults, since they have no effect."""
    for key in flattened(differences(config)):
        _refuse(not names or key in names, f"{where}.{key} has no effect {reason}, or leave it out")


def _check_model(model: ModelConfig) -> None:
    image, stored = model.image, model.image.kind == "precomputed"
    _refuse_indivisible("model.width", model.width, "model.heads", model.heads)
    if not stored:
        _refuse_indivisible("model.image.size", image.size, "model.image.patch", image.patch)
    if image.kind == "convnet" or image.stem == "conv":
        odd = image.patch < 2 or image.patch.bit_count() > 1
        _refuse(odd, f"model.image.patch = {image.patch} is not a power of two: convolutions of stride 2 need one")
    _refuse(stored and not image.tokens, "model.image.kind = precomputed needs model.image.tokens: tokens of an image")


def _check_objective(config: Config) -> None:
    objective, name = config.objective, config.objective.name
    weights = objective.pretraining
    any_loss = weights.contrastive_weight or weights.captioning_weight or weights.unimodal_language_model_weight
    _refuse(not any_loss, "every weight of config.objective.pretraining is 0: set at least one of them")
    no_answers = not (objective.vqa.classifier_weight or objective.vqa.generative_weight)
    _refuse(no_answers, "both weights of config.objective.vqa are 0: set at least one of them")
    for key in ("pretraining", "statements", "vqa", "captioning"):
        if name != key and not (key == "statements" and objective.reads_statement):
            _refuse_changes(f"objective.{key}", getattr(objective, key), f"on the objective {name}: change that")
    _check_head(config)
    if not objective.has_head:
        _refuse_changes("objective.head", objective.head, f"on the objective {name}, which has no head: change that")
    for source, one in config.data.sources.items():
        _check_task(config, f"{config.data.key(source)}.dataset", one.dataset)
        if name != "classification" and one.dataset.format != "digit_scenes":
            reason = f"on the objective {name}, as only classification has several views: change that"
            _refuse_changes(f"{config.data.key(source)}.dataset", one.dataset, reason, *_VIEWS)
        if config.train.cache_features:
            reason = "with train.cache_features, which keeps the features of unchanged images: set that to False"
            _refuse_changes(f"{config.data.key(source)}.augmentation", one.augmentation, reason)
    if config.train.cache_features:
        head = objective.head
        frozen = objective.has_head and (head.lock_image_encoder or not head.encoder_learning_rate)
        todo = "choose an objective with a head, and set objective.head.encoder_learning_rate = 0 or lock_image_encoder"
        _refuse(not frozen, f"train.cache_features keeps the features of a frozen image encoder: {todo}")
        stored = config.model.image.kind == "precomputed"
        _refuse(stored, "train.cache_features has no use for model.image.kind = precomputed: set it to False")


def _check_head(config: Config) -> None:
    """Refuses keys of the head without effect."""
    objective, head = config.objective, config.objective.head
    if objective.reads_text:
        _refuse(head.frame_positions, f"objective.head.frame_positions has no effect on the objective {objective.name}")
    if objective.name == "classification":
        todo = "set it to False, and objective.head.encoder_learning_rate = 0"
        _refuse(head.lock_image_encoder, f"objective.head.lock_image_encoder leaves only the head to train: {todo}")
        clips = any(one.dataset.frames for one in config.data.sources.values())
        unread = head.frame_positions and not clips
        _refuse(
            unread, "objective.head.frame_positions has no effect on images: set data.dataset.frames, or leave it out"
        )
    if objective.name == "vqa":
        _refuse_changes("objective.head", head, "on the soft targets of vqa", "label_smoothing")
    if objective.has_head and not head.encoder_learning_rate:
        reason = "on frozen parameters: set objective.head.encoder_learning_rate"
        _refuse_changes("objective.head", head, reason, "lock_image_encoder")
        _refuse_changes("objective.statements", objective.statements, reason)
    stored = config.model.image.kind == "precomputed" and objective.name == "pairs"
    _refuse(stored, "the objective pairs reads two images: model.image.kind = precomputed has the tokens of one")


def _check_task(config: Config, key: str, dataset: DatasetConfig) -> None:
    """Checks that a dataset has what the objective learns."""
    name = config.objective.name
    if dataset.format == "digit_scenes":
        tasks = _SCENE_TASKS[name]
        _refuse(dataset.task not in tasks, f"the objective {name} needs {key}.task = {' or '.join(tasks)}")
        frames = 8 * (dataset.task == "actions")
        _refuse(dataset.frames != frames, f"{key}.frames must be {frames} with {key}.task = {dataset.task}")
        uncached = config.train.cache_features
        _refuse(uncached, f"train.cache_features has no use for {key}.format = digit_scenes, which never repeat")
        return
    lacks_label = config.objective.has_head and not dataset.label_field
    what = "answers" if name == "vqa" else "class"
    _refuse(
        lacks_label, f"the objective {name} needs labels: name the field with a record's {what} as {key}.label_field"
    )
    lacks_pair = name == "pairs" and not dataset.second_image_field
    _refuse(
        lacks_pair, f"the objective pairs needs two images: name the second one's field as {key}.second_image_field"
    )
    clips = dataset.frames and config.objective.reads_text
    _refuse(clips, f"{key}.frames = {dataset.frames} makes clips, which the objective {name} cannot read: set it to 0")


def _check_data(data: DataConfig, reads_data: bool) -> None:
    if data.mixture:
        alone = DataConfig(name=data.name, dataset=data.dataset, augmentation=data.augmentation)
        _refuse_changes("data", alone, "beside data.mixture, whose sources have such keys: set it there")
    frames = {one.dataset.frames for one in data.sources.values()}
    alike = "a batch is all images, or all clips of the same number of frames"
    _refuse(len(frames) > 1, f"the sources of data.mixture differ in dataset.frames {sorted(frames)}: {alike}")
    for name, one in data.sources.items():
        where, key, dataset = data.key(name), f"{data.key(name)}.dataset", one.dataset
        _check_dataset(where, dataset, dataclasses.replace(one, share=1.0), reads_data)
        if not dataset.label_field:
            reason = f"without {key}.label_field: name the metadata with the class there"
            _refuse_changes(key, dataset, reason, "class_names", "prompts")
        if one.augmentation.crop != "resized":
            reason = f"with crop = {one.augmentation.crop}: set that to resized"
            _refuse_changes(f"{where}.augmentation", one.augmentation, reason, "crop_area")


def _check_stored_tokens(data: DataConfig) -> None:
    kind = "model.image.kind = precomputed"
    for name, one in data.sources.items():
        key = data.key(name)
        drawn = one.dataset.format == "digit_scenes" or one.dataset.frames
        _refuse(drawn, f"{kind} takes stored tokens: {key}.dataset must name records with .npy files, without frames")
        _refuse_changes(f"{key}.augmentation", one.augmentation, f"on the stored tokens of {kind}: change that")
        _refuse_changes(f"{key}.dataset", one.dataset, f"on the stored tokens of {kind}: change that", *_VIEWS)


def _check_dataset(where: str, dataset: DatasetConfig, config: Any, reads_data: bool, hint: str = "") -> None:
    """Checks the dataset of a part of the config, which lies at `where`."""
    generated = dataset.format == "digit_scenes"
    if generated:
        reason = f"on digit_scenes, which are generated: set {where}.dataset.format, such as folder"
        free = dataclasses.replace(config.dataset, task="captions", frames=0)
        _refuse_changes(where, dataclasses.replace(config, dataset=free), reason)
    else:
        reason = f"on {dataset.format}, whose records have texts and labels of their own: set it to captions"
        _refuse_changes(f"{where}.dataset", dataset, reason, "task")
    if dataset.format != "folder" and not generated:
        reason = f"on format={dataset.format}, as only manifests have it: set {where}.dataset.format = folder"
        _refuse_changes(f"{where}.dataset", dataset, reason, "records", "second_image_field")
    if not dataset.frames:
        _refuse_changes(f"{where}.dataset", dataset, f"without {where}.dataset.frames: set them", "evaluation_clips")
    both = (
        f"{where}.dataset has both evaluation_files and holdout_where, which name the held-out records: set one to ()"
    )
    _refuse(dataset.evaluation_files and dataset.holdout_where, both)
    if dataset.holdout_where:
        _refuse_changes(f"{where}.dataset", dataset, f"beside {where}.dataset.holdout_where: set that to ()", "holdout")
    templates = all("{}" in prompt for prompt in dataset.prompts) and dataset.prompts
    example = "templates with {} for the class name, such as 'a photo of a {}.', or one file"
    _refuse(len(dataset.prompts) != 1 and not templates, f"{where}.dataset.prompts needs {example}")
    lacks_path = reads_data and not generated and not dataset.path
    _refuse(lacks_path, f"{where} needs its records: pass --config.{where}.dataset.path=FOLDER{hint}")


def _check_evaluation_dataset(one: EvaluationDatasetConfig, where: str, reads_data: bool) -> None:
    dataset, key = one.dataset, f"{where}.dataset"
    own = dataclasses.replace(dataset, evaluation_files=())  # which differ from the defaults in any case
    get = f" (this gets the records: {one.download})" if one.download else ""
    _check_dataset(where, dataset, dataclasses.replace(EvaluationDatasetConfig(), dataset=own), reads_data, get)
    coarser = "head_classification" in one.tasks and one.classification.fields
    if not one.classification.described_by and "few_shot" not in one.tasks and not coarser:
        reason = f"on an evaluation, as it chooses training records: set {key}.only"
        split_by_file = ("train_files",) if dataset.evaluation_files else ()  # else of both splits
        _refuse_changes(key, own, reason, *split_by_file, "exclude", "exclude_keys")
    if coarser:
        scenes = f"{where}.classification.fields has no effect on the head's classes of digit_scenes: leave it out"
        _refuse(dataset.format == "digit_scenes", scenes)
        _refuse_all_evaluated(dataset, key, f"head_classification by {where}.classification.fields")
    if dataset.evaluation_files:
        _refuse_changes(key, own, f"beside {key}.evaluation_files: set that to ()", "holdout")
    _refuse(not one.tasks, f"{where}.tasks is empty: name what is measured, such as ('retrieval',)")
    train = dataset.format == "tfds" and "*" in dataset.evaluation_files
    _refuse(train, f"{key}.evaluation_files has '*', which is the split train: name another, such as ('test',)")
    if "head_classification" not in one.tasks:
        reason = f"on the tasks {', '.join(one.tasks)}, as only head_classification has several views: change the tasks"
        _refuse_changes(key, own, reason, *_VIEWS)
    clips = "video_retrieval" in one.tasks
    _refuse(clips and not dataset.frames, f"{where} asks for video_retrieval: set {key}.frames, such as to 16")
    other = set(one.tasks) - {"video_retrieval", "head_classification"}
    measured = "only video_retrieval and head_classification can be measured"
    _refuse(dataset.frames and other, f"{key}.frames makes clips, on which {measured}: change {where}.tasks")
    _check_classification(one, where)


def _check_classification(one: EvaluationDatasetConfig, where: str) -> None:
    dataset, classification = one.dataset, one.classification
    key, keys = f"{where}.dataset", f"{where}.classification"
    subset = classification.class_subset and one.examples
    _refuse(subset, f"{keys}.class_subset takes the classes that occur: set {where}.examples = 0 to read all records")
    classifies = not {"classification", "likelihood_classification", "few_shot"}.isdisjoint(one.tasks)
    labelled = dataset.format == "digit_scenes" or classification.fields or dataset.label_field
    unlabelled = f"{where} is to be classified: name the metadata with a record's class as {key}.label_field"
    _refuse(classifies and not labelled, unlabelled)
    headed = "head_classification" in one.tasks and not (dataset.format == "digit_scenes" or dataset.label_field)
    _refuse(headed, unlabelled)
    _refuse("{}" not in classification.likelihood_prompt, f"{keys}.likelihood_prompt needs a {{}} for the class name")
    several = f"{key}.class_names names the classes of one field: set {keys}.fields to that, or leave class_names out"
    _refuse(classifies and dataset.class_names and len(classification.fields) > 1, several)
    by_a_head = "head_classification" in one.tasks
    no_fields = (
        f"{keys}.fields has no effect on {', '.join(one.tasks)}: add the task classification or head_classification"
    )
    _refuse(classification.fields and not classifies and not by_a_head, no_fields)
    if classification.described_by:
        _refuse(dataset.class_names, f"{key}.class_names and {keys}.described_by both name the classes: leave one out")
        no_effect = f"{keys}.described_by has no effect on {', '.join(one.tasks)}: add the task classification"
        _refuse("classification" not in one.tasks, no_effect)
        _refuse_all_evaluated(dataset, key, f"{keys}.described_by")
    if "few_shot" in one.tasks:
        _refuse(
            not one.few_shot.shots, f"{where}.few_shot.shots is empty: name numbers of training images, such as (5,)"
        )
        if dataset.format != "digit_scenes":
            _refuse_all_evaluated(dataset, key, f"few_shot of {where}")


def _refuse_all_evaluated(dataset: DatasetConfig, key: str, what: str) -> None:
    """Refuses a dataset without training records, which `what` needs."""
    todo = f"name fewer {key}.evaluation_files, or set them to () and {key}.holdout_where to such as ('split=test',)"
    training = f"{what} needs records that are not evaluated: {todo}"
    _refuse(dataset.evaluation_files == ("*",), training)
