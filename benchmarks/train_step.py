r"""Measures the train step on the devices that are here: pairs/s, TFLOP/s, MFU, peak memory, compile time.

    python benchmarks/train_step.py --config=configs/coca_base.py --config.train.batch_size=256 --config.model.remat=full
    python benchmarks/train_step.py --config=configs/coca_giant.py:size=laptop --steps=5 --compare-losses

Needs jax, flax, optax, orbax-checkpoint and ml_collections; no data and no tensorflow: pictures and texts are random.
The step is the one that `coca_jax.train` runs. --compare-losses adds a captioner (contrastive weight 0) and a dual
encoder (captioning weight 0), and prints what each costs in units of the latter; the paper's Table 8b: 1.18 : 1.17 : 1.
"""

import dataclasses
import time

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from coca_jax.cli import app as command_line
from coca_jax.config import Config, ObjectiveConfig
from coca_jax.distributed import chips
from coca_jax.distributed.mesh import make_mesh, mesh_shape
from coca_jax.trainer import train_step

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/; override with --config.key=value.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps that are timed, after one that is not.", lower_bound=1)
_COMPARE = flags.DEFINE_bool("compare-losses", False, "Also a captioner and a dual encoder, and their costs.")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Attributes:
    seconds: a step, the median.
    peak_bytes: of the device that uses most; the compiler's figure where the device does not count.
    """

    parameters: int
    seconds: float
    compile_seconds: float
    peak_bytes: int
    model_flops: float
    step_flops: float


def measure(config: Config, steps: int) -> Measurement:
    """Runs a few steps of a config on all devices.

    Raises:
      CocaError: config and devices do not fit together.
    """
    mesh = make_mesh(config.train.mesh, config.model)
    built = train_step.build(config, mesh)
    batch = {name: jax.device_put(value, built.batch[name].sharding) for name, value in random_batch(built).items()}
    with jax.set_mesh(mesh):
        state = built.init()
    started = time.perf_counter()
    compiled = built.compile()
    compile_seconds = time.perf_counter() - started
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - started)
    return Measurement(
        parameters=parameters,
        seconds=float(np.median(times[1:])),
        compile_seconds=compile_seconds,
        peak_bytes=_peak_bytes(compiled),
        model_flops=train_step.model_flops(config),
        step_flops=train_step.step_flops(config),
    )


def random_batch(built: train_step.TrainStep) -> dict[str, np.ndarray]:
    """A batch of the program's shapes: noise, and texts of random length between a first token and pads (id 0)."""
    random, image, text = np.random.default_rng(0), built.batch["image"], built.batch["text"]
    if image.dtype == np.uint8:
        pictures = random.integers(0, 256, image.shape, np.uint8)
    else:
        pictures = random.standard_normal(image.shape, np.float32)
    ids = random.integers(1, built.config.model.text.vocabulary_size, text.shape, np.int32)
    lengths = random.integers(3, text.shape[1] + 1, (text.shape[0], 1))
    return {"image": pictures, "text": np.where(np.arange(text.shape[1]) < lengths, ids, 0).astype(np.int32)}


def _peak_bytes(compiled: jax.stages.Compiled) -> int:
    counted = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    stats = compiled.memory_analysis()
    return max(counted) or stats.argument_size_in_bytes + stats.temp_size_in_bytes


def show(title: str, config: Config, measured: Measurement) -> None:
    """Prints a measurement, a line each number."""
    devices, chip = jax.device_count(), chips.of_device_kind(jax.devices()[0].device_kind)
    pairs = config.train.batch_size / measured.seconds
    achieved = measured.model_flops / measured.seconds / devices
    data, fsdp, tensor = mesh_shape(config.train.mesh, config.model, devices)
    rows = {
        "devices": f"{devices} x {jax.devices()[0].device_kind}, data {data} x fsdp {fsdp} x tensor {tensor}",
        "parameters": f"{measured.parameters:,}",
        "batch": f"{config.train.batch_size:,} in {config.train.microbatches}, remat {config.model.remat}",
        "compile": f"{measured.compile_seconds:.1f} s",
        "step": f"{1e3 * measured.seconds:,.1f} ms",
        "pairs/s": f"{pairs:,.1f}",
        "pairs/s/chip": f"{pairs / devices:,.1f}",
        "model TFLOP/s/chip": f"{achieved / 1e12:,.3f}",
        "computed TFLOP/s/chip": f"{achieved * measured.step_flops / measured.model_flops / 1e12:,.3f}",
        "MFU": f"{achieved / chip.flops:.1%}" if chip else "unknown: no figures for this chip",
        "peak memory a chip": f"{measured.peak_bytes / 2**30:,.2f} GiB",
    }
    print(f"{title}\n" + "\n".join(f"  {name:<22} {value}" for name, value in rows.items()), flush=True)


def compare(config: Config, steps: int) -> None:
    """Measures CoCa, captioning alone and the contrastive loss alone, and prints the ratios of time and of FLOPs."""

    def only(**weights):
        pretraining = dataclasses.replace(config.objective.pretraining, **weights)
        return dataclasses.replace(config, objective=ObjectiveConfig(pretraining=pretraining))

    variants = {
        "CoCa": config,
        "captioning only": only(contrastive_weight=0.0),
        "contrastive only": only(captioning_weight=0.0),
    }
    measured = {}
    for name, variant in variants.items():
        measured[name] = measure(variant, steps)
        show(name, variant, measured[name])
    least = measured["contrastive only"]

    def ratios(cost):
        return " : ".join(f"{cost(one) / cost(least):.2f}" for one in measured.values())

    print(" : ".join(variants))
    print(f"  by time          {ratios(lambda one: one.seconds)}")
    print(f"  by model FLOPs   {ratios(lambda one: one.model_flops)}")
    print("  paper, Table 8b  1.18 : 1.17 : 1.00  (base with 6 + 6 text layers, TPU v3)")


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    config = command_line.config(_CONFIG, reads_data=False)
    if _COMPARE.value:
        compare(config, _STEPS.value)
    else:
        show("CoCa", config, measure(config, _STEPS.value))


if __name__ == "__main__":
    command_line.run(main)
