import functools
import importlib.util
import math
import pathlib

import jax
import pytest
import running

from coca_jax import config as config_lib
from coca_jax.errors import CocaError
from coca_jax.models import coca
from coca_jax.presets import pretraining as recipes

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
VARIANTS = ("base", "large", "giant")
ARGUMENTS = (None, "res=576", "size=laptop", "res=576,size=laptop")


def _config(variant: str, argument: str | None) -> config_lib.Config:
    """As the command line reads it, with a folder of tars where one is needed."""
    spec = importlib.util.spec_from_file_location("a_config", CONFIGS / f"coca_{variant}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config(argument)
    assert values.is_locked
    if values.data.dataset.format != "digit_scenes":
        values.data.dataset.path = "tars"
    return config_lib.from_config_dict(values)


@functools.cache
def _parameters(model: config_lib.ModelConfig) -> dict:
    return coca.abstract_parameters(coca.Coca(model))[0]


def _millions(*parts: dict) -> float:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(parts)) / 1e6


@pytest.mark.parametrize("variant, image, total", [("base", 86, 383), ("large", 303.5, 787), ("giant", 1011.5, 2192)])
def test_full_size_is_table_1(variant, image, total):
    config = _config(variant, None)
    assert config.model.image.size == 288 and config.model.pooler.queries == 256
    params = _parameters(config.model)
    assert _millions(params["image_encoder"]) == pytest.approx(image, abs=0.5)
    counted = [part for name, part in params.items() if name != "poolers"]  # as the paper's table does
    assert _millions(*counted) == pytest.approx(total, abs=0.5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_size_is_the_papers_recipe(variant):
    config = _config(variant, None)
    assert (config.train.steps, config.train.batch_size, config.train.init_from) == (500_000, 65_536, "")
    assert (config.objective, config.optimizer) == (config_lib.ObjectiveConfig(), config_lib.OptimizerConfig())
    assert config.model.dtype == "bfloat16" and config.data.long_text == "truncate"
    without = config_lib.to_config_dict(config)
    without.data.dataset.path = ""
    with pytest.raises(CocaError, match=r"--config.data.dataset.path=FOLDER"):
        config_lib.from_config_dict(without)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", ["full", "laptop"])
def test_the_second_stage_differs_in_positions_alone(variant, size):
    first, second = (_config(variant, f"res={res},size={size}") for res in (288, 576))
    assert coca.token_count(second.model.image) == 4 * coca.token_count(first.model.image)
    before, after = _parameters(first.model), _parameters(second.model)
    changed = jax.tree.map(lambda a, b: a.shape != b.shape, before, after)
    differing = [path for path, change in jax.tree_util.tree_leaves_with_path(changed) if change]
    assert [jax.tree_util.keystr(path, simple=True, separator="/") for path in differing] == ["image_encoder/positions"]
    assert second.train.init_from.startswith(f"runs/coca_{variant}")
    assert second.train.batch_size == first.train.batch_size


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_laptop_gets_the_same_code_and_little_of_it(variant):
    full, small = _config(variant, None), _config(variant, "size=laptop")
    assert small.data.dataset.format == "digit_scenes" and small.train.steps == 3
    assert _millions(_parameters(small.model)) < 6
    for key in ("kind", "stem"):
        assert getattr(small.model.image, key) == getattr(full.model.image, key)
    assert small.model.pooler.kind == full.model.pooler.kind and small.model.remat == full.model.remat
    assert (small.optimizer, small.objective) == (full.optimizer, full.objective)


@pytest.mark.parametrize("argument", ["res=300", "laptop", "size", "size=", "resolution=576", "res=576;size=laptop"])
def test_an_unknown_argument_lists_the_valid_ones(argument):
    with pytest.raises(CocaError) as caught:
        recipes.coca("base", argument)
    message = str(caught.value)
    assert repr(argument) in message and "\n" not in message
    assert "res=288, res=576, size=full, size=laptop" in message


def test_an_argument_given_twice_is_refused():
    with pytest.raises(CocaError, match="argument res is given twice"):
        recipes.coca("base", "res=288,res=576")


def test_arguments_take_their_first_choice_by_default():
    choices = {"a": ("1", "2"), "b": ("x", "y")}
    for text, expected in {
        None: ("1", "x"),
        "": ("1", "x"),
        "b=y": ("1", "y"),
        "a=2, b=y": ("2", "y"),
        "b=y,a=2": ("2", "y"),
    }.items():
        assert recipes.arguments(text, choices) == dict(zip("ab", expected, strict=True))


def _train(folder: pathlib.Path, argument: str, *flags: object) -> tuple[int, str, str]:
    small = (
        "--config.model.image.layers=1",
        "--config.model.text.unimodal_layers=1",
        "--config.model.text.multimodal_layers=1",
        "--config.train.tensorboard=False",
        "--config.evaluation.examples=8",
        "--config.evaluation.gallery=2",
        "--config.evaluation.batch_size=8",
    )
    flags = (f"--config=configs/coca_giant.py:{argument}", f"--workdir={folder}", *small, *flags)
    return running.call(running.command("train", *flags))


def test_a_laptop_trains_the_giant_and_continues_at_576(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    status, _, err = _train(first, "size=laptop")
    assert status == 0, err
    assert [row["step"] for row in running.rows(first)] == [1, 2, 3]
    assert (first / "report.html").exists() and "trained one of" in err
    status, _, err = _train(second, "res=576,size=laptop", f"--config.train.init_from={first}")
    assert status == 0 and "resizes image_encoder/positions from 64 to 256 tokens" in err, err
    assert "trained one of" not in err
    rows = running.rows(second)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss"] < running.rows(first)[0]["loss"]


def test_a_mistyped_argument_is_one_sentence_on_the_command_line(tmp_path):
    status, _, err = _train(tmp_path, "size=tiny")
    assert status == 2 and err.startswith("error: the config file takes no argument 'size=tiny'")
    assert err.count("\n") == 1
