"""The step of an adaptation: what a frozen encoder costs, and the giant's state with each head, on 64 devices."""

import jax
import jax.numpy as jnp
import pytest
import tiny
import tiny_tasks
from jax.sharding import PartitionSpec

from coca_jax import config as config_lib
from coca_jax.data.digit_scenes.tasks import CLASSES
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.objectives.base import by_name
from coca_jax.trainer import flops, train_step


def _head_products(tokens: int, classes: int, trains_tokens: bool) -> tuple[int, int]:
    """FLOPs of a tiny model's head for an example, forward and backward; `trains_tokens`: their gradient is needed."""
    width = inside = 16
    query, read, out = 2 * width * inside, 2 * 2 * tokens * width * inside, 2 * inside * width
    attention, classifier = 2 * 2 * tokens * inside, 2 * width * classes
    forward = query + read + attention + out + classifier
    # A product's gradient is two products, of which a kernel's alone is one.
    return forward, 2 * (query + attention + out + classifier) + (2 if trains_tokens else 1) * read


def _encoder_flops(config) -> float:
    built = train_step.build(config, train_step.abstract_mesh(config, 1))
    params, image = built.state.params, built.batch["image"]
    return flops.count(built.objective.encode, {"image_encoder": params["image_encoder"]}, image)


@pytest.mark.parametrize("task, tokens", [("digits", 4), ("actions", 8 * 4)])
def test_a_frozen_encoder_costs_its_forward_pass_alone(task, tokens):
    config = tiny_tasks.config(task)
    forward, backward = _head_products(tokens, len(CLASSES[task]), trains_tokens=False)
    encoder, rows = _encoder_flops(config), config.train.batch_size
    images = rows * (8 if task == "actions" else 1)
    block = 2 * 4 * (4 * 16**2 + 2 * 16 * 32) + 4 * 4**2 * 16
    assert encoder == images * (2 * 4 * (8 * 8 * 3) * 16 + block)
    assert train_step.step_flops(config) == encoder + rows * (forward + backward)
    # All of this is needed; of what is trained, by convention, both gradients of each product.
    assert train_step.model_flops(config) == train_step.step_flops(config)
    finetuned = tiny_tasks.config(task, objective__head__encoder_learning_rate=1e-3)
    assert train_step.encoder_flops(finetuned) == 0
    assert train_step.model_flops(finetuned) == 3 * (encoder + rows * forward)
    assert train_step.step_flops(finetuned) > 2.5 * encoder


def test_a_frozen_decoder_costs_its_forward_pass_alone_and_muons_products_are_not_the_models():
    frozen = tiny_tasks.config("entailment", optimizer__name="muon", model__remat="full")
    finetuned = tiny_tasks.config("entailment", objective__head__encoder_learning_rate=1e-3)
    _, backward = _head_products(48, 3, trains_tokens=False)
    rows, all_forward = frozen.train.batch_size, train_step.model_flops(finetuned) / 3
    assert train_step.model_flops(frozen) == all_forward + rows * backward
    assert train_step.step_flops(frozen) > train_step.model_flops(frozen)


def test_questions_are_learned_alike_on_a_mesh_and_in_parts():
    def trained(mesh, **changes) -> list[dict[str, float]]:
        rates = dict(optimizer__peak_learning_rate=1e-4, objective__head__encoder_learning_rate=1e-4)
        config, history = tiny_tasks.config("questions", objective__head__classes=32, **rates, **changes), []
        answers = (*CLASSES["questions"], "none")  # 32, which the devices can share
        local = Pipeline(config, tiny_tasks.vocabulary(), classes=answers).batch(0)
        with jax.set_mesh(mesh):
            built = train_step.build(config, mesh, tiny_tasks.vocabulary().pad_id)
            state, compiled = built.init(), built.compile()
            batch = {name: jax.device_put(local[name], x.sharding) for name, x in built.batch.items()}
            for _ in range(3):
                state, metrics = compiled(state, batch)
                history.append({name: float(value) for name, value in metrics.items()})
        return history

    expected = trained(tiny.mesh(1, 1, 1))
    found = trained(tiny.mesh(2, 2, 2), train__microbatches=2)
    assert found[-1]["loss"] < found[0]["loss"]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


# The giant


def _giant(name: str, classes: int, encoder_learning_rate: float, **dataset) -> train_step.TrainStep:
    values = config_lib.default()
    values.model = config_lib.to_config_dict(config_lib.variant("giant"))
    values.model.image.size = 576
    values.objective.name = name
    if classes:
        values.objective.head.update(classes=classes, encoder_learning_rate=encoder_learning_rate)
    values.optimizer.ema_decay = 0.9999
    values.train.batch_size = 128
    values.data.dataset.update(dataset)
    config = config_lib.from_config_dict(values)
    return train_step.build(config, train_step.abstract_mesh(config, 64))


def _sizes(tree) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, x in by_name(tree).items():
        part = name.partition("/")[0]
        sizes[part] = sizes.get(part, 0) + x.size
    return sizes


POOLER = 4 * 4 * 1408**2  # queries, keys, values and outputs of a pooler of one query, but for biases and norm


@pytest.mark.parametrize(
    "name, classes, rate, dataset",
    [
        ("classification", 1_000, 0.0, {"task": "digits"}),
        ("classification", 700, 5e-4, {"task": "actions", "frames": 8}),
        ("vqa", 3_129, 2e-5, {"task": "questions"}),
        ("entailment", 3, 5e-5, {"task": "entailment"}),
        ("pairs", 2, 2e-5, {"task": "pairs"}),
        ("captioning", 0, 0.0, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_giant_is_spread_over_64_devices(name, classes, rate, dataset):
    built = _giant(name, classes, rate, **dataset)
    pretrained, sizes = _sizes(_giant("captioning", 0, 0.0).state.params), _sizes(built.state.params)
    kept = {"classification": {"image_encoder"}, "captioning": pretrained.keys()}
    vqa = {"softmax"} if name == "vqa" else set()
    parts = kept.get(name, {"image_encoder", "poolers", "unimodal", "multimodal"} | vqa)
    assert sizes.keys() - {"head"} == parts
    for part in parts - {"poolers", "unimodal"}:
        assert sizes[part] == pretrained[part]
    images = 2 if name == "pairs" else 1
    if classes:
        assert sizes["head"] == pytest.approx(POOLER + images * 1408 * classes, rel=0.01)
        assert by_name(built.state.params)["head/kernel"].sharding.spec == PartitionSpec("fsdp", None)
    # Every device has a 64th of the parameters, but for small ones, and of the optimiser's moments for what is trained.
    trained = sum(sizes.values()) if rate or not classes else sizes["head"]
    each = train_step.bytes_per_device(built.state.params)
    assert each == pytest.approx(4 * sum(sizes.values()) / 64, rel=0.05)
    assert train_step.bytes_per_device(built.state.average) == pytest.approx(4 * trained / 64, rel=0.05)
    assert 2 * trained / 64 < train_step.bytes_per_device(built.state.opt_state) < 4 * trained / 64
    if classes and not rate:
        tokens = built.inputs["tokens"]
        assert tokens.shape == (128, 1, 32 * 32, 1408) and tokens.dtype == jnp.bfloat16
        assert tokens.sharding.shard_shape(tokens.shape)[0] == 2
    assert all(x.sharding.shard_shape(x.shape)[0] == 2 for x in jax.tree.leaves(built.inputs))
