"""A small model on any dataset, and the paper's pretraining (§4.1) in three sizes, each also at 576 pixels or on a laptop.

--config=configs/coca_giant.py                       65,536 pairs a step, 500,000 steps, at 288 pixels
--config=configs/coca_giant.py:res=576               then one epoch at 576, from the checkpoint of the first
--config=configs/coca_giant.py:res=576,size=laptop   either through the same code on a laptop, for three steps
--config=configs/coca_giant.py:data=imagenet         on another dataset of datasets.py than tars of one's own
"""

from ml_collections import ConfigDict

from coca_jax import config as config_lib
from coca_jax.errors import CocaError
from coca_jax.presets import datasets

_ARGUMENTS = {"res": ("288", "576"), "size": ("full", "laptop")}  # the first is the default


def arguments(text: str | None, choices: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The values of the keys that follow the colon of `--config=FILE:KEY=VALUE,KEY=VALUE`; others have their first choice.

    Raises:
      CocaError: a key or value that is no choice, or a key given twice; it lists the choices.
    """
    valid = ", ".join(f"{key}={value}" for key, values in choices.items() for value in values)
    given = {}
    for part in filter(None, (text or "").split(",")):
        key, _, value = part.strip().partition("=")
        if value not in choices.get(key, ()):
            raise CocaError(f"the config file takes no argument {part!r}: write some of {valid}, with commas between")
        if key in given:
            raise CocaError(f"the config file's argument {key} is given twice: write one of {valid}")
        given[key] = value
    return {key: values[0] for key, values in choices.items()} | given


def small(name: str) -> ConfigDict:
    """A small model on a dataset of `datasets.py`, to be trained from scratch; raises CocaError if there is no such one."""
    config = config_lib.default()
    config.model.update(width=192, heads=6, dtype="float32", remat="full")
    config.model.image.update(size=96, patch=16, stem="conv", layers=4, mlp=768)
    config.model.pooler.update(queries=16, hidden_multiple=1)
    config.model.text.update(vocabulary_size=4_000, length=48, unimodal_layers=2, multimodal_layers=2, mlp=768)
    config.optimizer.update(name="adamw", peak_learning_rate=5e-4, b2=0.98, warmup_fraction=0.05)
    config.optimizer.update(weight_decay=0.1, clip_norm=1.0, ema_decay=0.99)
    config.data.update(datasets.data(name), name=name, long_text="truncate")
    config.train.update(steps=2_000, batch_size=64, checkpoint_every=200, log_every=20)
    config.evaluation.update(batch_size=64)
    return config


def minutes_on_cpu(width: int, *, weight_decay: float, ema_decay: float) -> ConfigDict:
    """A model of that width (heads of 32) and an optimiser that learn from scratch within minutes on two cores.

    The config file adds the sizes of both towers, the data, and how long.
    """
    config = config_lib.default()
    config.model.update(width=width, heads=width // 32, dtype="float32", remat="full", kernel_variance=2.0)
    config.model.pooler.update(queries=0, hidden_multiple=1)
    config.optimizer.update(name="muon", peak_learning_rate=1e-2, b1=0.95, b2=0.98, warmup_fraction=0.05)
    config.optimizer.update(weight_decay=weight_decay, clip_norm=1.0, ema_decay=ema_decay)
    config.train.update(batch_size=128, checkpoint_every=200, log_every=20)
    return config


def coca(variant: str, text: str | None = None, data: tuple[str, ...] = tuple(datasets.DATASETS)) -> ConfigDict:
    """The config of the paper's base, large or giant; errors as those of `arguments`.

    Args:
      text: the config file's argument, such as "res=576,size=laptop".
      data: datasets that its key "data" may name; empty: the file has data of its own.
    """
    given = arguments(text, _ARGUMENTS | ({"data": data} if data else {}))
    config = config_lib.default()  # loss, optimiser, steps and batch size are the paper's already
    config.model = config_lib.to_config_dict(config_lib.variant(variant))
    config.model.remat = "dots"
    config.data.long_text = "truncate"
    if data:
        config.data.update(datasets.data(given["data"]), name=given["data"])
    config.train.log_every = 50
    if given["res"] == "576":
        _continue_at_576(config, f"runs/coca_{variant}")
    if given["size"] == "laptop":
        _shrink(config)
    return config


def _continue_at_576(config: ConfigDict, first_stage: str) -> None:
    """One epoch of ALIGN's 1.6 billion pairs, half of each batch. The paper names no learning rate: a tenth is ours."""
    config.model.image.size = 576
    config.optimizer.peak_learning_rate /= 10
    config.train.update(steps=50_000, init_from=first_stage)


def _shrink(config: ConfigDict) -> None:
    """A twelfth of the layers, an eighth of the widths, a sixth of the image; on digit scenes, which need no files."""
    model, image, text = config.model, config.model.image, config.model.text
    model.update(width=model.width // 8, heads=model.heads // 4, dtype="float32")  # CPUs are slow at bfloat16
    image.update(size=image.size // 6, patch=image.patch // 3, layers=image.layers // 12, mlp=image.mlp // 8)
    model.pooler.queries //= 16
    text.update(vocabulary_size=256, length=24, mlp=text.mlp // 8)
    text.update(unimodal_layers=text.unimodal_layers // 12, multimodal_layers=text.multimodal_layers // 12)
    config.data = config_lib.to_config_dict(config_lib.DataConfig())
    config.train.update(steps=3, batch_size=16, log_every=1)
    if config.train.init_from:
        config.train.init_from += "_laptop"
    config.evaluation.update(examples=48, batch_size=16)
