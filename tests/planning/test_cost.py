"""Chips, machines, what the compiler's complaints mean, bounds, estimates and the search, without a compiler."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from coca_jax import config
from coca_jax.config import Config, ImageEncoderConfig, MeshConfig, ModelConfig, PoolerConfig, TextConfig, TrainConfig
from coca_jax.distributed import chips
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.planning import candidates as search
from coca_jax.planning import cost, topology
from coca_jax.planning import table as report
from coca_jax.planning.collectives import Traffic
from coca_jax.trainer import train_step

GIB = 2**30
NO_ROOM = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (300.00G) exceeds "
    "available HBM (15.75G)."
)
TINY = Config(
    model=ModelConfig(
        width=64,
        heads=2,
        image=ImageEncoderConfig(size=16, patch=8, layers=2, mlp=64),
        pooler=PoolerConfig(queries=4),
        text=TextConfig(64, 8, unimodal_layers=1, multimodal_layers=1, mlp=64),
    ),
    train=TrainConfig(batch_size=64),
)


def test_chips_as_their_makers_describe_them():
    nominal = {"v4": 32 * GIB, "v5p": 96 * GIB, "v5e": 16 * GIB, "v6e": 32 * GIB, "h100": 80e9, "h200": 141e9}
    for name, size in nominal.items():
        chip = chips.chip(name)
        assert 0.95 * size < chip.hbm <= size
        assert chip.flops > 100 * chip.hbm_bandwidth > 100 * chip.network_bandwidth
    assert chips.chip("H200").flops == chips.chip("h100").flops
    with pytest.raises(CocaError, match=r"'a100'.*h200"):
        chips.chip("a100")


@pytest.mark.parametrize(
    "kind, name",
    [
        ("TPU v4", "v4"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_chips_by_the_names_that_jax_gives_them(kind, name):
    assert chips.of_device_kind(kind) == chips.chip(name)


def test_a_device_of_which_nothing_is_known():
    assert chips.of_device_kind(jax.devices()[0].device_kind) is None


def test_topologies():
    machine = topology.parse("v4:8x16x16")
    assert (machine.devices, str(machine), machine.chip.name) == (2_048, "v4:8x16x16", "v4")
    assert topology.parse("h100:256").devices == 256


@pytest.mark.parametrize(
    "text, words",
    [
        ("v9:2x2", ("'v9'", "v5e")),
        ("v4", ("v4:8x8x8",)),
        ("v4:8x16", ("v4 takes 3", "v4:8x8x8")),
        ("v5e:16x0", ("v5e:16x16",)),
        ("h100:8x8", ("h100 takes 1", "h100:256")),
    ],
)
def test_topologies_that_make_no_sense(text, words):
    with pytest.raises(CocaError) as error:
        topology.parse(text)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "message, needed",
    [
        (NO_ROOM, 300 * GIB),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 19.50G of 15.75G hbm.", round(19.5 * GIB)),
        ("INTERNAL: something else (300.00G)", None),
    ],
)
def test_what_the_compiler_says_when_memory_runs_out(message, needed):
    assert cost._out_of_memory(message) == needed


def machine_cost(**changes) -> cost.Cost:
    """A step on 256 chips of v5e whose compute, memory and network take 2, 1 and 0.5 seconds."""
    chip = chips.chip("v5e")
    state = round(chip.hbm_bandwidth / 4)
    train = TrainConfig(batch_size=65_536, microbatches=8, mesh=MeshConfig(2, 128, 1))
    made = cost.Cost(
        topology=topology.parse("v5e:16x16"),
        config=Config(train=train),
        memory=cost.Memory(state, 0, 0, state, 0, round(0.75 * chip.hbm), chip.hbm),
        model_flops=256 * chip.flops * 1.5,
        step_flops=256 * chip.flops * 2,
        traffic={"all-gather": Traffic(3, chip.network_bandwidth / 2)},
        compile_seconds=7.0,
    )
    return dataclasses.replace(made, **changes)


def test_bounds():
    made = machine_cost()
    assert made.bounds == pytest.approx({"compute": 2, "memory": 1, "network": 0.5})
    assert (made.step_seconds, made.utilization, made.pairs_per_second_per_chip) == pytest.approx((2, 0.75, 128))
    assert made.fits and report.verdict(made) == "fits"


def test_the_table_and_its_json_say_the_same():
    made = machine_cost()
    table, values = report.table(made), report.as_dict(made)
    assert "75% of 15.75 GiB: fits" in table and values["memory"]["share"] == pytest.approx(0.75)
    assert "MFU" in table and "< 75.0%" in table and values["bounds"]["mfu"] == pytest.approx(0.75)
    assert "all-gather" in table and values["traffic"]["all-gather"]["count"] == 3
    assert "data 2 x fsdp 128 x tensor 1, remat none, batch 65,536 in 8" in table
    assert "compiled in 7 s" in table and "bounds, not forecasts" in table
    assert "estimated" in report.table(dataclasses.replace(made, compile_seconds=None))


def test_what_does_not_fit_says_so():
    full = dataclasses.replace(machine_cost().memory, peak=round(1.2 * machine_cost().memory.available))
    assert "120% of 15.75 GiB: does not fit" in report.table(machine_cost(memory=full))
    assert not report.as_dict(machine_cost(memory=full))["fits"]
    tight = dataclasses.replace(full, peak=round(0.95 * full.available))
    assert report.verdict(machine_cost(memory=tight)) == "fits, with less than 10% to spare"


@pytest.fixture
def flops_by_remat(monkeypatch):
    """Plausible FLOPs, at no cost: counting them has a test of its own."""
    more = {"none": 1.0, "dots": 1.02, "attention": 1.1, "full": 1.25}
    monkeypatch.setattr(cost, "model_flops", lambda config: 1e12)
    monkeypatch.setattr(
        cost, "step_flops", lambda config: 1e12 * (more[config.model.remat] + 0.25 * (config.train.microbatches > 1))
    )


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: no text\nof it"), ValueError("no trip count")])
def test_a_compiled_program_that_cannot_be_read_is_planned_without_its_traffic(monkeypatch, flops_by_remat, error):
    sizes = dict.fromkeys(("temp", "output", "alias", "generated_code", "argument"), GIB)
    stats = types.SimpleNamespace(
        **{f"{name}_size_in_bytes": size for name, size in sizes.items()}, peak_memory_in_bytes=0
    )

    class Compiled:
        def memory_analysis(self):
            return stats

        def as_text(self):
            raise error

    built = train_step.build(TINY, train_step.abstract_mesh(TINY, 4))
    monkeypatch.setattr(train_step.TrainStep, "compile", lambda self: Compiled())
    made = cost.compiled_cost(built, topology.parse("v5e:2x2"))
    assert made.traffic is None and made.sent is None and made.memory.peak == 3 * GIB and made.fits
    assert made.bounds.keys() == {"compute", "memory"} and made.step_seconds > 0
    table, values = report.table(made), report.as_dict(made)
    (line,) = [line for line in table.splitlines() if line.startswith("sent by each chip")]
    assert "not known" in line and str(error).splitlines()[0] in line and "by network" not in table
    assert values["traffic"] is None and json.loads(json.dumps(values))["unread"] == made.unread


def test_a_step_that_does_not_fit_has_no_traffic(monkeypatch, flops_by_remat):
    def compile(self):
        raise jax.errors.JaxRuntimeError(NO_ROOM)

    monkeypatch.setattr(train_step.TrainStep, "compile", compile)
    made = cost.compiled_cost(train_step.build(TINY, train_step.abstract_mesh(TINY, 4)), topology.parse("v5e:2x2"))
    assert not made.fits and made.memory.peak == 300 * GIB and "not compiled" in report.table(made)


def test_bytes_a_device_are_those_of_the_arrays_laid_out():
    tiny = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, mesh=MeshConfig(2, 4, 1)))
    built = train_step.build(tiny, make_mesh(tiny.train.mesh, tiny.model))
    laid_out = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), built.state.params)
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(laid_out))
    assert train_step.bytes_per_device(built.state.params) == held
    assert train_step.bytes_per_device(built.batch) == 64 // 8 * (16 * 16 * 3 + 8 * 4)


def test_estimates_fall_with_what_is_kept_and_with_what_is_sharded(flops_by_remat):
    machine = topology.parse("h100:8")

    def peak(remat, microbatches=1, fsdp=1):
        model = dataclasses.replace(TINY.model, remat=remat)
        train = dataclasses.replace(TINY.train, microbatches=microbatches, mesh=MeshConfig(8 // fsdp, fsdp, 1))
        changed = dataclasses.replace(TINY, model=model, train=train)
        memory = cost.estimated_cost(changed, machine).memory
        return memory.peak

    assert peak("none") > peak("dots") > peak("attention") > peak("full")
    assert peak("none", microbatches=2) > peak("none", microbatches=8) and peak("full") > peak("full", fsdp=4)


def test_search_compiles_the_fastest_first_and_learns_from_it(flops_by_remat, monkeypatch):
    machine = topology.parse("h100:8")
    ranked = search.candidates(TINY, machine)
    assert [guess.step_seconds for _, guess in ranked] == sorted(guess.step_seconds for _, guess in ranked)
    remats, parts = {c.model.remat for c, _ in ranked}, {c.train.microbatches for c, _ in ranked}
    assert remats == {"none", "dots", "attention", "full"} and parts == {1, 2, 4, 8}
    guesses, tried = dict(ranked), []
    biggest = max(guess.memory.peak for guess in guesses.values())

    def measure(candidate, topology):  # all take as much more than was estimated, the largest just too much
        memory = guesses[candidate].memory
        memory = dataclasses.replace(memory, peak=round(memory.peak / biggest * memory.available))
        tried.append(dataclasses.replace(guesses[candidate], memory=memory))
        return tried[-1]

    largest_first = sorted(ranked, key=lambda pair: -pair[1].memory.peak)
    monkeypatch.setattr(search, "candidates", lambda config, topology: largest_first)
    monkeypatch.setattr(search, "measure", measure)
    found = search.search(TINY, machine, 2)
    assert tried[0].memory.share == pytest.approx(1) and 0.8 < found.memory.share <= 0.9 and tried[1:] == [found]
    with pytest.raises(CocaError, match="--tries"):
        search.search(TINY, machine, 1)


def test_search_that_cannot_succeed(flops_by_remat):
    giant = Config(model=config.variant("giant"), train=TrainConfig(batch_size=65_536))
    with pytest.raises(CocaError, match="more chips"):
        search.candidates(giant, topology.parse("h100:1"))
