import dataclasses
import importlib.util
import json
import pathlib

import jax
import ml_collections
import pytest

from coca_jax import config as config_lib
from coca_jax.config import Config, DatasetConfig, EvaluationDatasetConfig, from_config_dict
from coca_jax.errors import CocaError

CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*.py"))


def _nested(key: str, value) -> dict:
    """_nested("a.b", 1) is {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _with(changes: dict) -> ml_collections.ConfigDict:
    values = config_lib.default()
    values.update_from_flattened_dict(changes)
    return values


def _refusal(values) -> str:
    with pytest.raises(CocaError) as caught:
        from_config_dict(values)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def _changed_everywhere(config):
    """A config in which no value is its default, except names, which keep to their choices."""

    def other(field, value):
        if dataclasses.is_dataclass(value):
            return _changed_everywhere(value)
        if isinstance(value, bool):
            return not value
        if field.name == "datasets":
            more = {"dataset": {"format": "folder", "path": "a"}, "examples": 3, "captioning": {"beams": 2}}
            values = config_lib.evaluation_config(more=config_lib.evaluation_dataset(**more))
            return config_lib.evaluation_from_config_dict(values).datasets
        if isinstance(value, dict):
            return {"one": _changed_everywhere(config_lib.SourceConfig())}
        if field.name in ("task", "holdout_where", "evaluation_clips", "evaluation_crops"):
            return value  # of the digit scenes, not beside evaluation_files, of classification
        if isinstance(value, tuple):
            return (*value, "other {}", "and another {}")
        if field.metadata.get("range", {}).get("below") == 1:
            return 0.5
        if field.name == "format":
            return "folder"  # which has all keys
        if isinstance(value, str):
            choices = [c for c in field.metadata.get("choices", ()) if c != value]
            return choices[0] if choices else value + "changed" * ("choices" not in field.metadata)
        return value * 2 if value else value + (1 if isinstance(value, int) else 0.25)

    fields = {f.name: other(f, getattr(config, f.name)) for f in dataclasses.fields(config)}
    return dataclasses.replace(config, **fields)


def test_a_mixture_is_open_to_flags_and_refuses_what_it_does_not_know():
    values = config_lib.default()
    web = config_lib.source(share=3, dataset={"format": "tars", "path": "a"})
    values.data.mixture = {"web": web, "scenes": config_lib.source()}
    values.data.mixture.web.dataset.path = "b"
    config = from_config_dict(values)
    assert list(config.data.sources) == ["scenes", "web"]
    assert config.data.sources["web"] == config_lib.SourceConfig(3.0, DatasetConfig(format="tars", path="b"))
    assert from_config_dict(config_lib.to_config_dict(config)) == config
    assert "config.data.mixture.web.dataset has no key 'pat': did you mean config.data.mixture.web.dataset.path" in (
        _refusal({"data": {"mixture": {"web": {"dataset": {"pat": "a"}}}}})
    )
    assert "data.mixture.web needs its records" in _refusal(
        {"data": {"mixture": {"web": {"dataset": {"format": "tars"}}}}}
    )
    assert "share = 0.0 must be above 0" in _refusal({"data": {"mixture": {"a": {"share": 0}}}})
    assert "has the name 'a b'" in _refusal({"data": {"mixture": {"a b": {}}}})


def test_a_set_alone_is_its_own_source():
    config = from_config_dict({"data": {"dataset": {"format": "tars", "path": "a"}, "name": "emoji"}})
    assert config.data.sources == {"emoji": config_lib.SourceConfig(dataset=config.data.dataset)}


def test_defaults_survive_the_round_trip():
    assert from_config_dict(config_lib.default()) == Config()
    assert from_config_dict({}) == Config()
    assert from_config_dict(ml_collections.ConfigDict()) == Config()


def test_every_value_survives_the_round_trip():
    changed = _changed_everywhere(Config())
    changed_objective = changed.objective
    resized = dataclasses.replace(changed.data.augmentation, crop="resized")
    mixture = {
        name: dataclasses.replace(one, augmentation=dataclasses.replace(one.augmentation, crop="resized"))
        for name, one in changed.data.mixture.items()
    }
    changed = dataclasses.replace(  # the contradictions that changing everything makes
        changed,
        data=dataclasses.replace(changed.data, augmentation=resized, mixture=mixture),
        model=dataclasses.replace(changed.model, image=dataclasses.replace(changed.model.image, patch=32)),
        optimizer=dataclasses.replace(changed.optimizer, warmup_fraction=0.0),
        objective=config_lib.ObjectiveConfig(pretraining=changed_objective.pretraining),
        train=dataclasses.replace(changed.train, cache_features=False, evaluate_every=changed.train.checkpoint_every),
    )

    def leaves(config):
        return jax.tree.leaves(dataclasses.asdict(config), is_leaf=lambda x: isinstance(x, tuple))

    alone = dataclasses.replace(
        changed,
        data=dataclasses.replace(changed.data, mixture={}),
        evaluation=dataclasses.replace(changed.evaluation, datasets={}),
    )
    head, vqa, captioning = changed_objective.head, changed_objective.vqa, changed_objective.captioning
    dataset = DatasetConfig(format="folder", path="x", label_field="y", frames=4, holdout_where=("a=b",))
    dataset = dataclasses.replace(dataset, evaluation_clips=2, evaluation_crops=3)
    adapted = (  # with what only one objective has
        Config(
            objective=config_lib.ObjectiveConfig(
                "vqa", head=dataclasses.replace(head, label_smoothing=0.0, frame_positions=False), vqa=vqa
            ),
            data=config_lib.DataConfig(dataset=DatasetConfig(task="questions")),
        ),
        Config(
            objective=config_lib.ObjectiveConfig(
                "classification", head=dataclasses.replace(head, lock_image_encoder=False, encoder_learning_rate=0.0)
            ),
            data=config_lib.DataConfig(dataset=dataset),
            train=config_lib.TrainConfig(cache_features=True),
        ),
        Config(objective=config_lib.ObjectiveConfig("captioning", captioning=captioning)),
        Config(
            objective=config_lib.ObjectiveConfig(
                "entailment",
                head=config_lib.HeadConfig(encoder_learning_rate=1e-3),
                statements=changed_objective.statements,
            ),
            data=config_lib.DataConfig(dataset=DatasetConfig(task="entailment")),
        ),
    )
    for before, *after in zip(*map(leaves, (Config(), alone, *adapted)), strict=True):
        assert any(one != before for one in after)
    mixed = config_lib.DataConfig(mixture=changed.data.mixture)
    for config in (alone, dataclasses.replace(changed, data=mixed), *adapted):
        assert from_config_dict(config_lib.to_config_dict(config)) == config


def test_json_restores_an_equal_config():
    dataset = {"format": "tars", "path": "p", "train_files": ("a*", "b*"), "exclude": ("style=flat",)}
    config = from_config_dict({"data": {"dataset": dataset}, "train": {"seed": 7}})
    restored = from_config_dict(json.loads(json.dumps(dataclasses.asdict(config))))
    assert restored == config and hash(restored) == hash(config)
    assert restored.data.dataset.train_files == ("a*", "b*") and restored.data.dataset.evaluation_files == ()
    assert type(restored.data.dataset.train_files) is tuple


def test_missing_keys_take_their_defaults():
    config = from_config_dict({"model": {"width": 64, "heads": 4}})
    assert (config.model.width, config.model.heads) == (64, 4)
    assert dataclasses.replace(config, model=config_lib.ModelConfig()) == Config()


def test_the_config_dict_is_locked():
    with pytest.raises((AttributeError, KeyError), match="peak_lr"):
        config_lib.default().optimizer.peak_lr = 1e-3
    with pytest.raises(KeyError, match="peak_lr"):
        config_lib.default().optimizer.update(peak_lr=1e-3)


@pytest.mark.parametrize(
    "key, nearest",
    [
        ("optimiser", "config.optimizer"),
        ("model.widht", "config.model.width"),
        ("model.image.patchsize", "config.model.image.patch"),
        ("train.mesh.tensors", "config.train.mesh.tensor"),
        ("data.dataset.train_file", "config.data.dataset.train_files"),
        ("zzz", "config."),  # nothing is near: some key is named all the same
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    message = _refusal(_nested(key, 1))
    assert repr(key.split(".")[-1]) in message and f"did you mean {nearest}" in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("model.width", 64.0),
        ("model.width", "64"),
        ("model.width", True),
        ("model.width", None),
        ("model.dtype", 32),
        ("model.text.tied_softmax", 1),
        ("optimizer.peak_learning_rate", "1e-3"),
        ("optimizer.peak_learning_rate", True),
        ("data.dataset.train_files", "*.tar"),
        ("data.dataset.train_files", ("a", 1)),
        ("data.dataset.path", 5),
    ],
)
def test_a_wrong_type_is_refused_by_name(key, value):
    message = _refusal(_nested(key, value))
    assert f"config.{key}" in message and repr(value) in message


@pytest.mark.parametrize("key", ["model", "model.image", "train.mesh"])
@pytest.mark.parametrize("value", [3, None, "base"])
def test_a_value_in_place_of_a_section_is_refused_by_name(key, value):
    assert f"config.{key}" in _refusal(_nested(key, value))


def test_an_integer_is_taken_for_a_float():
    weight = from_config_dict(
        {"objective": {"pretraining": {"captioning_weight": 3}}}
    ).objective.pretraining.captioning_weight
    assert weight == 3.0 and type(weight) is float


@pytest.mark.parametrize(
    "key, choices",
    [
        ("model.dtype", ("bfloat16", "float32")),
        ("model.remat", ("none", "dots", "attention", "full")),
        ("model.image.stem", ("patch", "conv")),
        ("model.pooler.kind", ("cascade", "parallel")),
        ("optimizer.name", ("adafactor", "adamw")),
        ("optimizer.schedule", ("linear", "cosine", "constant")),
        ("data.long_text", ("error", "truncate")),
    ],
)
def test_choices(key, choices):
    message = _refusal(_nested(key, "float16"))
    assert f"config.{key} is 'float16'" in message and ", ".join(choices) in message
    for choice in choices:
        value = from_config_dict(
            _nested(key, choice)
            | ({"model": {"image": {"patch": 16, "stem": choice}}} if key == "model.image.stem" else {})
        )
        for part in key.split("."):
            value = getattr(value, part)
        assert value == choice


VQA = {"objective.name": "vqa", "data.dataset.task": "questions"}
ENTAILMENT = {"objective.name": "entailment", "data.dataset.task": "entailment"}
PAIRS = {"objective.name": "pairs", "data.dataset.task": "pairs"}
STORED = {"data.dataset.format": "folder", "data.dataset.path": "somewhere"}
LABELLED = STORED | {"data.dataset.label_field": "label"}
CACHED = LABELLED | {"objective.name": "classification", "train.cache_features": True}
CONTRADICTIONS = {
    "heads": ({"model.heads": 7}, "model.heads = 7 does not divide model.width = 768: change"),
    "patch": ({"model.image.patch": 17}, "model.image.patch = 17 does not divide model.image.size = 288: change"),
    "conv": ({"model.image.stem": "conv"}, "model.image.patch = 18 is not a power of two"),
    "convnet": ({"model.image.kind": "convnet"}, "model.image.patch = 18 is not a power of two"),
    "patch of 1": ({"model.image.stem": "conv", "model.image.patch": 1}, "model.image.patch = 1 is not a power of two"),
    "tokens": ({"model.image.kind": "precomputed"}, "needs model.image.tokens"),
    "no loss": (
        {"objective.pretraining.contrastive_weight": 0.0, "objective.pretraining.captioning_weight": 0.0},
        "every weight of config.objective.pretraining is 0",
    ),
    "temperature": ({"objective.pretraining.initial_temperature": 0.0}, "initial_temperature = 0.0 must be above 0"),
    "length": ({"model.text.length": 2}, "model.text.length = 2 must be at least 3"),
    "steps": ({"train.steps": 0}, "train.steps = 0 must be at least 1"),
    "batch": ({"train.batch_size": 0}, "train.batch_size = 0 must be at least 1"),
    "no microbatch": (
        {"train.microbatches": 0},
        "train.microbatches = 0 must be at least 1",
    ),
    "microbatches": (
        {"train.microbatches": 3},
        "train.microbatches = 3 does not divide train.batch_size = 65536: change",
    ),
    "log_every": ({"train.log_every": 0}, "train.log_every = 0 must be at least 1"),
    "checkpoint_every": (
        {"train.checkpoint_every": 0},
        "train.checkpoint_every = 0 must be at least 1",
    ),
    "keep": ({"train.keep_checkpoints": 0}, "train.keep_checkpoints = 0 must be at least 1"),
    "ema": ({"optimizer.ema_decay": 1.0}, "optimizer.ema_decay = 1.0 must be at least 0 and below 1"),
    "warmup": ({"optimizer.warmup_fraction": 1.0}, "optimizer.warmup_fraction = 1.0 must be at least 0 and below 1"),
    "holdout": ({"data.dataset.holdout": 1.0}, "data.dataset.holdout = 1.0 must be at least 0 and below 1"),
    "two warm-ups": (
        {"optimizer.warmup_steps": 5},
        "optimizer.warmup_steps and optimizer.warmup_fraction are both set",
    ),
    "head of pretraining": (
        {"objective.head.label_smoothing": 0.1},
        "objective.head.label_smoothing has no effect on the objective pretraining, which has no head",
    ),
    "pretraining's weights": (
        {"objective.name": "captioning", "objective.pretraining.captioning_weight": 1.0},
        "objective.pretraining.captioning_weight has no effect on the objective captioning",
    ),
    "no answers": (
        VQA | {"objective.vqa.classifier_weight": 0.0, "objective.vqa.generative_weight": 0.0},
        "both weights of config.objective.vqa are 0",
    ),
    "smoothing of soft targets": (
        VQA | {"objective.head.label_smoothing": 0.1},
        "objective.head.label_smoothing has no effect on the soft targets of vqa",
    ),
    "frames of questions": (VQA | {"objective.head.frame_positions": True}, "frame_positions has no effect on the obj"),
    "frames of images": (
        {"objective.name": "classification", "data.dataset.task": "digits", "objective.head.frame_positions": True},
        "objective.head.frame_positions has no effect on images: set data.dataset.frames",
    ),
    "a lock of what is frozen": (
        VQA | {"objective.head.lock_image_encoder": True},
        "objective.head.lock_image_encoder has no effect on frozen parameters: set",
    ),
    "a loss of what is frozen": (
        ENTAILMENT | {"objective.statements.generative_weight": 1.0},
        "objective.statements.generative_weight has no effect on frozen parameters: set",
    ),
    "area of whole images": (
        STORED | {"data.augmentation.crop_area": 0.5},
        "data.augmentation.crop_area has no effect with crop = none",
    ),
    "pairs of tokens": (
        PAIRS | {"model.image.kind": "precomputed", "model.image.tokens": 4},
        "the objective pairs reads two images: model.image.kind = precomputed has the tokens of one",
    ),
    "another task": (
        {"objective.name": "classification"},
        "the objective classification needs data.dataset.task = digits or actions",
    ),
    "task of pretraining": (
        {"data.dataset.task": "pairs"},
        "pretraining needs data.dataset.task = captions or actions",
    ),
    "stills of actions": (
        {"data.dataset.task": "actions"},
        "data.dataset.frames must be 8 with data.dataset.task = ac",
    ),
    "frames of stills": ({"data.dataset.frames": 4}, "data.dataset.frames must be 0 with data.dataset.task = captions"),
    "task of stored records": (
        STORED | {"data.dataset.task": "digits"},
        "data.dataset.task has no effect on folder, whose records have texts and labels of their own",
    ),
    "no labels": (
        STORED | {"objective.name": "classification"},
        "needs labels: name the field with a record's class as data.dataset.label_field",
    ),
    "no answers of records": (
        STORED | {"objective.name": "vqa"},
        "name the field with a record's answers as data.data",
    ),
    "no second image": (LABELLED | {"objective.name": "pairs"}, "as data.dataset.second_image_field"),
    "clips with questions": (
        LABELLED | {"objective.name": "vqa", "data.dataset.frames": 4},
        "data.dataset.frames = 4 makes clips, which the objective vqa cannot read",
    ),
    "cache of scenes": (VQA | {"train.cache_features": True}, "which never repeat"),
    "cache of a trained encoder": (
        CACHED | {"objective.head.encoder_learning_rate": 1e-3},
        "train.cache_features keeps the features of a frozen image encoder",
    ),
    "cache of pretraining": (STORED | {"train.cache_features": True}, "choose an objective with a head"),
    "cache of augmented images": (
        CACHED | {"data.augmentation.mirror": True},
        "data.augmentation.mirror has no effect with train.cache_features",
    ),
    "cache of stored tokens": (
        CACHED | {"model.image.kind": "precomputed", "model.image.tokens": 5},
        "train.cache_features has no use for model.image.kind = precomputed",
    ),
    "tars": (
        {"data.dataset.format": "tars"},
        "data needs its records: pass --config.data.dataset.path=FOLDER",
    ),
    "folder": (
        {"data.dataset.format": "folder"},
        "data needs its records: pass --config.data.dataset.path=FOLDER",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_says_what_to_change(name):
    changes, sentence = CONTRADICTIONS[name]
    assert sentence in _refusal(_with(changes))


@pytest.mark.parametrize("key", ["model.heads", "model.width", "model.image.patch", "model.image.size"])
@pytest.mark.parametrize("value", [0, -2])
def test_sizes_below_one_are_refused_by_name(key, value):
    assert key in _refusal(_with({key: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.image.stem": "conv", "model.image.patch": 16},
        {
            "model.image.kind": "precomputed",
            "model.image.tokens": 5,
            "model.image.patch": 17,
            "data.dataset.format": "tars",
            "data.dataset.path": "somewhere",
        },
        {"objective.pretraining.contrastive_weight": 0.0},
        {"objective.pretraining.captioning_weight": 0.0},
        {
            "objective.pretraining.contrastive_weight": 0.0,
            "objective.pretraining.captioning_weight": 0.0,
            "objective.pretraining.unimodal_language_model_weight": 1.0,
        },
        {"data.dataset.format": "tars", "data.dataset.path": "somewhere"},
        {"optimizer.warmup_fraction": 0.0},
        {"train.evaluate_every": 0},
        VQA,
        CACHED,
        CACHED | {"data.dataset.frames": 4},
        {"objective.name": "classification", "data.dataset.task": "actions", "data.dataset.frames": 8},
        {"optimizer.warmup_steps": 5, "optimizer.warmup_fraction": 0.0},
    ],
)
def test_what_looks_odd_but_is_sound_passes(changes):
    from_config_dict(_with(changes))


def test_variants_are_table_1():
    table = {  # image layers, image MLP, unimodal, multimodal, text MLP, width, heads
        "base": (12, 3072, 12, 12, 3072, 768, 12),
        "large": (24, 4096, 12, 12, 4096, 1024, 16),
        "giant": (40, 6144, 18, 18, 5632, 1408, 16),
    }
    for name, row in table.items():
        m = config_lib.variant(name)
        found = (
            m.image.layers,
            m.image.mlp,
            m.text.unimodal_layers,
            m.text.multimodal_layers,
            m.text.mlp,
            m.width,
            m.heads,
        )
        assert found == row
        assert (m.image.size, m.image.patch, m.text.vocabulary_size, m.pooler.queries) == (288, 18, 64_000, 256)
        from_config_dict({"model": dataclasses.asdict(m)})
    assert config_lib.variant("base") == Config().model
    with pytest.raises(CocaError, match=r"'huge'.*base, large, giant"):
        config_lib.variant("huge")


def test_the_paper_is_the_default():
    config = Config()
    losses = config.objective.pretraining
    assert (losses.contrastive_weight, losses.captioning_weight, losses.initial_temperature) == (1, 2, 0.07)
    assert (config.train.steps, config.train.batch_size) == (500_000, 65_536)
    o = config.optimizer
    assert (o.name, o.peak_learning_rate, o.warmup_fraction, o.schedule) == ("adafactor", 8e-4, 0.02, "linear")
    assert (o.b1, o.b2, o.weight_decay) == (0.9, 0.999, 0.01)
    assert (config.model.pooler.kind, config.model.text.tied_softmax) == ("cascade", False)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_converts(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config()
    assert isinstance(values, ml_collections.ConfigDict) and values.is_locked
    from_config_dict(values, reads_data=False)  # without the paths that follow
    if values.data.dataset.format != "digit_scenes" and not values.data.dataset.path:
        values.data.dataset.path = "a folder that the command line names"
    for name in values.data.mixture:
        values.data.mixture[name].dataset.path = "another"
    assert from_config_dict(values) != Config()
    assert config_lib.to_config_dict(from_config_dict(values)).to_dict() == values.to_dict()


def test_there_are_config_files():
    assert "quickstart" in [path.stem for path in CONFIGS]


def test_evaluation_sets_by_name_with_flags_for_each_of_their_keys():
    values = config_lib.evaluation_config(
        a=config_lib.evaluation_dataset(dataset={"format": "tars"}), b=config_lib.evaluation_dataset(examples=5)
    )
    values.datasets.a.dataset.path = "x"
    found = config_lib.evaluation_from_config_dict(values)
    assert found.datasets == {
        "a": EvaluationDatasetConfig(DatasetConfig(format="tars", path="x", evaluation_files=("*",))),
        "b": EvaluationDatasetConfig(examples=5),
    }
    assert values.is_locked
    with pytest.raises(
        CocaError,
        match=r"config\.datasets\.a\.captioning has no key 'beam': did you mean config\.datasets\.a\.captioning\.beams",
    ):
        config_lib.evaluation_from_config_dict({"datasets": {"a": {"captioning": {"beam": 2}}}})
    with pytest.raises(AttributeError):
        values.datasets.a.captioning.beam = 2
    assert "evaluation.datasets.a needs its records" in _refusal(
        {"evaluation": {"datasets": {"a": {"dataset": {"format": "tars"}}}}}
    )


def _sections(config, where=""):
    """(place in the config, field, value) of every leaf of a config's dataclasses, those of sources and evaluations too."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f"{key}.")
        elif field.name in ("mixture", "datasets"):
            one = config_lib.SourceConfig() if field.name == "mixture" else EvaluationDatasetConfig()
            yield from _sections(one, f"{key}.x.")
        else:
            yield key, field, value


FIELDS = list(_sections(Config()))
NUMBERS = {key: field for key, field, value in FIELDS if type(value) in (int, float)}
PATHS = {key: value for key, field, value in FIELDS if field.metadata.get("path")}
STEP = {"at least": -1, "above": 0, "at most": 1, "below": 0}  # from a bound to a value outside


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_range_and_is_refused_outside_of_it(key):
    bounds = NUMBERS[key].metadata.get("range", {})
    assert bounds.keys() & {"at least", "above"}, f"{key} needs a lower bound: see coca_jax/config/fields.py"
    for word, bound in bounds.items():
        message = _refusal(_nested(key, NUMBERS[key].type(bound + STEP[word])))
        assert f"config.{key} = " in message and f"{word} {bound}" in message
    if NUMBERS[key].type is float:
        for value in (float("nan"), float("inf"), 10**400):
            assert f"config.{key} = " in _refusal(_nested(key, value)) or "finite" in _refusal(_nested(key, value))


def test_shares_of_a_whole_and_decays_have_an_upper_bound():
    bounded = {
        key.rpartition(".")[2]
        for key, field in NUMBERS.items()
        if field.metadata["range"].keys() & {"at most", "below"}
    }
    assert {"holdout", "max_bad_ratio", "warmup_fraction", "b1", "b2", "ema_decay", "seed"} <= bounded


@pytest.mark.parametrize("key", PATHS)
def test_a_tilde_in_a_path_is_the_home_folder(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")

    def converted(text):
        values = _nested(key, (text,) if isinstance(PATHS[key], tuple) else text)
        if ".x." in key:
            section = values[key.split(".")[0]][key.split(".")[1]]["x"]
            section["dataset"] = {"format": "folder", "path": "p", "label_field": "l"} | section.get("dataset", {})
        elif key.startswith("data.dataset."):
            values["data"]["dataset"] |= {"format": "folder", "label_field": "l"}
        value = from_config_dict(values, reads_data=False)
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value[0] if isinstance(PATHS[key], tuple) else value

    if not key.startswith("evaluation.") or not key.endswith("exclude_keys"):
        assert converted("~/a/~b") == "/home/me/a/~b"
        assert converted("gs://bucket/~/a") == "gs://bucket/~/a" and converted("a~") == "a~"


def test_the_paths_of_a_config_are_these():
    names = {key.rpartition(".")[2] for key in PATHS}
    assert names == {"path", "exclude_keys", "class_names", "class_ids", "prompts", "vocabulary", "init_from"}


def _other(field, value):
    choices = [choice for choice in field.metadata.get("choices", ()) if choice != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    return (
        ("x",)
        if isinstance(value, tuple)
        else "x"
        if isinstance(value, str)
        else 0.5
        if isinstance(value, float)
        else value + 1
    )


SINGLE = [
    ("data.name", "x"),
    *(
        (key, _other(field, value))
        for key, field, value in FIELDS
        if key.startswith(("data.dataset.", "data.augmentation."))
    ),
]


@pytest.mark.parametrize("key, value", SINGLE)
def test_a_mixture_refuses_the_keys_of_a_single_dataset(key, value):
    mixture = {"data": {"mixture": {"one": {}}}}
    from_config_dict(mixture)
    values = _nested(key, value)
    values["data"] |= mixture["data"]
    assert f"{key} has no effect beside data.mixture" in _refusal(values)


SCENES = ("data.name", "data.dataset.format", "data.dataset.task", "data.dataset.frames")


@pytest.mark.parametrize("key, value", [one for one in SINGLE if one[0] not in SCENES])
def test_digit_scenes_refuse_the_keys_of_stored_datasets(key, value):
    assert f"{key} has no effect on digit_scenes" in _refusal(_nested(key, value))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"exclude": ("a=b",)}, "datasets.x.dataset.exclude has no effect on an evaluation"),
        ({"exclude_keys": "keys.txt"}, "datasets.x.dataset.exclude_keys has no effect on an evaluation"),
        ({"train_files": ("a*",)}, "datasets.x.dataset.train_files has no effect on an evaluation"),
        ({"holdout": 0.5}, "datasets.x.dataset.holdout has no effect beside datasets.x.dataset.evaluation_files"),
        ({"evaluation_crops": 3}, "datasets.x.dataset.evaluation_crops has no effect on the tasks retrieval"),
        (
            {"evaluation_clips": 3},
            "datasets.x.dataset.evaluation_clips has no effect without datasets.x.dataset.frames",
        ),
        ({"holdout_where": ("a=b",)}, "datasets.x.dataset has both evaluation_files and holdout_where"),
        ({"format": "digit_scenes"}, "datasets.x.dataset.path has no effect on digit_scenes"),
    ],
)
def test_an_evaluation_refuses_what_can_only_be_a_mistake(changes, sentence):
    values = {"datasets": {"x": {"dataset": {"format": "folder", "path": "p"}}}}
    config_lib.evaluation_from_config_dict(values)
    values["datasets"]["x"]["dataset"] |= changes
    with pytest.raises(CocaError) as caught:
        config_lib.evaluation_from_config_dict(values)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"label_field": "kind"}, ""),
        (
            {},
            "datasets.x is to be classified: name the metadata with a record's class as datasets.x.dataset.label_field",
        ),
        ({"label_field": "kind", "frames": 4}, ""),
    ],
)
def test_a_head_is_evaluated_on_labelled_images_and_clips(changes, sentence):
    dataset = config_lib.evaluation_dataset(
        dataset={"format": "folder", "path": "a", **changes}, tasks=("head_classification",)
    )
    values = config_lib.evaluation_config(x=dataset)
    if not sentence:
        assert config_lib.evaluation_from_config_dict(values).datasets["x"].tasks == ("head_classification",)
        return
    with pytest.raises(CocaError, match=sentence):
        config_lib.evaluation_from_config_dict(values)


def test_coarser_classes_of_a_head_are_read_from_training_records():
    def refusal(**dataset):
        dataset = {"format": "folder", "path": "a", "label_field": "name", **dataset}
        keys = {"tasks": ("head_classification",), "classification": {"fields": ("group",)}}
        values = config_lib.evaluation_config(x=config_lib.evaluation_dataset(dataset=dataset, **keys))
        with pytest.raises(CocaError) as caught:
            config_lib.evaluation_from_config_dict(values)
        return str(caught.value)

    assert "datasets.x.classification.fields needs records that are not evaluated" in refusal()
    assert "has both evaluation_files and holdout_where" in refusal(holdout_where=("a=b",))
    assert "classification.fields has no effect" in refusal(format="digit_scenes", path="", label_field="")


def test_prompts_and_class_names_need_a_label_field():
    for changes in ({"prompts": ("a {}",)}, {"class_names": "names.txt"}):
        values = {"data": {"dataset": {"format": "folder", "path": "p", **changes}}}
        assert "has no effect without data.dataset.label_field" in _refusal(values)
        values["data"]["dataset"]["label_field"] = "kind"
        from_config_dict(values)


def test_only_the_datasets_to_evaluate_are_checked():
    values = {
        "datasets": {"here": {"dataset": {"format": "tars", "path": "x"}}, "missing": {"dataset": {"format": "tars"}}}
    }
    assert list(config_lib.evaluation_from_config_dict(values, ["here"]).datasets) == ["here"]
    for names in ([], ["missing"]):
        with pytest.raises(CocaError, match=r"datasets\.missing needs its records"):
            config_lib.evaluation_from_config_dict(values, names)


def test_places_are_not_asked_for_where_nothing_is_read():
    values = {"data": {"mixture": {"web": {"dataset": {"format": "tars"}}}}}
    assert "data.mixture.web needs its records" in _refusal(values)
    assert from_config_dict(values, reads_data=False).data.sources["web"].dataset.format == "tars"
    values["data"]["mixture"]["web"]["share"] = 0.0  # anything else is checked all the same
    with pytest.raises(CocaError, match="share"):
        from_config_dict(values, reads_data=False)


def test_differences_hold_what_is_not_a_default_and_no_key_that_is_added_later():
    assert config_lib.differences(Config()) == {}
    dataset = DatasetConfig(format="tars", path="a", only=("split=x",))
    config = config_lib.DataConfig(dataset=dataset, mixture={"web": config_lib.SourceConfig(share=2.0)})
    expected = {
        "dataset": {"format": "tars", "path": "a", "only": ("split=x",)},
        "mixture": {"web": {"share": 2.0}},
    }
    assert config_lib.differences(config) == expected
    assert config_lib.fields.flattened(expected)["mixture.web.share"] == 2.0

    @dataclasses.dataclass(frozen=True)
    class Later(DatasetConfig):
        key: str = "new"

    assert config_lib.differences(Later(**vars(dataset))) == expected["dataset"]
    assert config_lib.differences(Later(key="other")) == {"key": "other"}
