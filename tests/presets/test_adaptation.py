"""The configs of configs/adapt against the paper's Tables 9 and 10, their laptop forms, and those of one's own data."""

import importlib.util
import pathlib

import pytest

from coca_jax import config as config_lib
from coca_jax.errors import CocaError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "adapt"

# file, argument: RandAugment (operations, magnitude), label smoothing, steps, batch size, pooler lr, encoder lr, warm-up,
# weight decay; "-" where the table has no such row or says NA.
TABLES = """
imagenet         features=frozen     2,20  0.2  200000  512  5e-4  0     0     0.01
imagenet         features=finetuned  2,20  0.5  200000  512  5e-4  5e-4  0     0.01
kinetics         features=frozen     0,0   0.1  120000  128  5e-4  0     1000  0.0
kinetics         features=finetuned  0,0   0.1  120000  128  5e-4  5e-4  1000  0.0
moments_in_time  features=frozen     0,0   0.0  120000  128  5e-4  0     1000  0.0
moments_in_time  features=finetuned  0,0   0.0  120000  128  5e-4  5e-4  1000  0.0
vqa              -                   1,10  -    100000   64  5e-4  2e-5  1000  0.1
snli_ve          -                   1,10  -     50000  128  1e-3  5e-5  1000  0.1
nlvr2            -                   0,0   -     50000   64  5e-4  2e-5  1000  0.1
coco_captioning  -                   0,0   -     50000  128  NA    1e-5  1000  0.1
nocaps           -                   0,0   -     10000  128  NA    1e-5  1000  0.1
"""
ROWS = [line.split() for line in TABLES.strip().splitlines()]
FILES = sorted({row[0] for row in ROWS})


def _values(name: str, argument: str | None):
    spec = importlib.util.spec_from_file_location("a_config", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config(argument)
    assert values.is_locked
    return values


def _config(name: str, argument: str | None) -> config_lib.Config:
    return config_lib.from_config_dict(_values(name, argument), reads_data=False)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:2]))
def test_full_size_is_the_tables_column(row):
    name, argument, randaugment, smoothing, *numbers = row
    steps, batch, head_rate, encoder_rate, warmup, decay = (None if x == "NA" else float(x) for x in numbers)
    config = _config(name, None if argument == "-" else argument)
    optimizer, head, augmentation = config.optimizer, config.objective.head, config.data.augmentation
    operations, magnitude = map(int, randaugment.split(","))
    assert augmentation.randaugment_layers == operations
    assert not operations or augmentation.randaugment_magnitude == magnitude
    assert head.label_smoothing == (0.0 if smoothing == "-" else float(smoothing))
    assert (config.train.steps, config.train.batch_size) == (steps, batch)
    assert (optimizer.warmup_steps, optimizer.warmup_fraction, optimizer.weight_decay) == (warmup, 0.0, decay)
    if head_rate is None:
        assert optimizer.peak_learning_rate == encoder_rate and config.objective.name == "captioning"
    else:
        assert (optimizer.peak_learning_rate, head.encoder_learning_rate) == (head_rate, encoder_rate)
    assert (optimizer.name, optimizer.schedule, optimizer.clip_norm) == ("adafactor", "cosine", 1.0)
    assert optimizer.ema_decay == 0.9999 and config.model.image.size == 576 and config.model.width == 1408


@pytest.mark.parametrize("name", FILES)
def test_laptop_form_needs_no_files_and_starts_from_the_quickstart(name):
    full, config = _config(name, None), config_lib.from_config_dict(_values(name, "size=laptop"))
    assert config.data.dataset.format == "digit_scenes" and config.train.init_from == "runs/quickstart"
    assert config.objective.name == full.objective.name and config.train.steps <= 10_000


def test_captioning_alone_and_its_damage():
    for name in ("coco_captioning", "nocaps"):
        config = _config(name, None)
        assert (config.objective.captioning.captioning_weight, config.objective.captioning.contrastive_weight) == (1, 0)
        assert config.train.evaluate_first


def test_vqa_has_3129_answers_and_sets_without_files_say_so():
    assert _config("vqa", None).objective.head.classes == 3_129
    with pytest.raises(CocaError, match=r"--config.data.dataset.path=FOLDER"):
        config_lib.from_config_dict(_values("vqa", None))
    with pytest.raises(CocaError, match="no argument 'features=frozen'"):
        _values("vqa", "features=frozen")


@pytest.mark.parametrize("model, width", [("base", 768), ("large", 1024), ("giant", 1408)])
def test_any_variant_can_be_adapted(model, width):
    config = _config("imagenet", f"model={model}")
    assert config.model.width == width and config.train.init_from == f"runs/coca_{model}_576"


@pytest.mark.parametrize(
    "task, objective", [("classes", "classification"), ("questions", "vqa"), ("clips", "classification")]
)
def test_own_data(task, objective):
    values = _values("folder", f"task={task}")
    values.data.dataset.path, values.train.init_from = "somewhere", "runs/photos"
    config = config_lib.from_config_dict(values)
    assert config.objective.name == objective and config.data.dataset.holdout == 0.1
    assert config.train.cache_features and not config.objective.head.encoder_learning_rate
    finetuned = _config("folder", f"task={task},features=finetuned")
    assert finetuned.objective.head.encoder_learning_rate > 0 and not finetuned.train.cache_features


@pytest.mark.parametrize(
    "file, argument, run, frozen",
    [
        ("easy_vqa", "FOLDER", "runs/quickstart", False),
        ("emoji", "FOLDER", "runs/emoji", True),
        ("caltech101", None, "runs/caltech101", True),
        ("caltech101", "features=finetuned", "runs/caltech101", False),
    ],
)
def test_public_data_of_a_laptop(file, argument, run, frozen):
    values = _values(file, argument)
    values.data.dataset.path = values.data.dataset.path or "FOLDER"
    config = config_lib.from_config_dict(values)
    assert config.train.init_from == run and (config.objective.head.encoder_learning_rate == 0) == frozen
    held_out = [one.dataset for one in config.evaluation.datasets.values()] or [config.data.dataset]
    assert all(one.path.startswith("FOLDER") and one.holds_out for one in held_out)
    assert config.data.dataset.holds_out == (file == "caltech101")  # the others' test data have files of their own
