"""A plan for people, as a table, and for programs, as a dict."""

import dataclasses
from typing import Any

from coca_jax.pages.terminal import text_table
from coca_jax.planning.cost import COMFORTABLE, Cost


def table(cost: Cost) -> str:
    """The cost of a step as a page of text."""
    memory, devices, chip = cost.memory, cost.topology.devices, cost.topology.chip
    pairs, more = cost.pairs_per_second_per_chip, cost.step_flops / cost.model_flops
    pair_flops = cost.model_flops / cost.config.train.batch_size
    peaks = {
        "compute": f"{chip.flops / 1e12:,.0f} TFLOP/s",
        "memory": f"{chip.hbm_bandwidth / 1e9:,.0f} GB/s",
        "network": f"{chip.network_bandwidth / 1e9:,.0f} GB/s",
    }
    sections = [
        [
            ("memory a chip", "", ""),
            ("  parameters", _size(memory.parameters), ""),
            ("  optimiser", _size(memory.optimizer), ""),
            ("  batch", _size(memory.batch), ""),
            ("  temporaries", _size(memory.temporaries), "activations, gradients, gathered parameters"),
            ("  program", _size(memory.code), ""),
            ("  peak", _size(memory.peak), f"{memory.share:.0%} of {_size(memory.available)}: {verdict(cost)}"),
        ],
        [
            ("compute", "", ""),
            ("  a pair needs", _flops(pair_flops), "3 x the forward pass"),
            ("  a step needs", _flops(cost.model_flops), ""),
            ("  a step computes", _flops(cost.step_flops), f"{more:.2f} x, by remat and microbatches"),
        ],
        [("sent by each chip a step", "not known" if cost.sent is None else _size(cost.sent), cost.unread)],
        [("roofline: bounds, not forecasts", "", "")],
    ]
    for kind, traffic in sorted((cost.traffic or {}).items(), key=lambda item: -item[1].bytes):
        sections[2].append((f"  {kind}", _size(traffic.bytes), f"{traffic.count:,} times" if traffic.count else ""))
    for name, seconds in cost.bounds.items():
        sections[3].append((f"  step, by {name}", f"> {1e3 * seconds:,.1f} ms", f"at {peaks[name]}"))
    sections[3].append(("  MFU", f"< {cost.utilization:.1%}", ""))
    sections[3].append(("  pairs/s", f"< {pairs * devices:,.0f}", f"{pairs:,.1f} a chip"))
    rows = [row for section in sections for row in (("", "", ""), *section)]
    return f"{cost.topology}, {devices:,} chips  {_settings(cost)}  {_source(cost)}\n{text_table(rows, '<><')}"


def verdict(cost: Cost) -> str:
    """Whether the step fits, in words."""
    if not cost.fits:
        return "does not fit"
    return "fits" if cost.memory.share <= COMFORTABLE else f"fits, with less than {1 - COMFORTABLE:.0%} to spare"


def as_dict(cost: Cost) -> dict[str, Any]:
    """The same for `json.dumps`: bytes a chip, FLOPs over all chips, seconds a step."""
    train, values = cost.config.train, dataclasses.asdict(cost)
    pair = cost.model_flops / train.batch_size
    return {
        "topology": str(cost.topology),
        "chips": cost.topology.devices,
        "mesh": dataclasses.asdict(train.mesh),
        "remat": cost.config.model.remat,
        "batch_size": train.batch_size,
        "microbatches": train.microbatches,
        "compile_seconds": cost.compile_seconds,
        "fits": cost.fits,
        "memory": values["memory"] | {"share": cost.memory.share},
        "flops": {"model": cost.model_flops, "per_pair": pair, "step": cost.step_flops},
        "traffic": values["traffic"],
        "unread": cost.unread,
        "bounds": {
            "seconds": cost.bounds,
            "step_seconds": cost.step_seconds,
            "mfu": cost.utilization,
            "pairs_per_second_per_chip": cost.pairs_per_second_per_chip,
        },
    }


def flags(cost: Cost) -> str:
    """The flags with which `coca_jax.train` runs what was planned."""
    train = cost.config.train
    keys = {f"train.mesh.{axis}": size for axis, size in dataclasses.asdict(train.mesh).items()}
    keys |= {"model.remat": cost.config.model.remat, "train.microbatches": train.microbatches}
    return " ".join(f"--config.{key}={value}" for key, value in keys.items())


def line(cost: Cost) -> str:
    """One candidate of a search, as a line of the log."""
    memory = f"{_size(cost.memory.peak)} ({cost.memory.share:.0%})"
    return f"{_settings(cost)}: {_source(cost)}, {memory}, MFU < {cost.utilization:.1%}"


def _source(cost: Cost) -> str:
    return "estimated by arithmetic" if cost.compile_seconds is None else f"compiled in {cost.compile_seconds:.0f} s"


def _settings(cost: Cost) -> str:
    train = cost.config.train
    mesh = " x ".join(f"{axis} {size}" for axis, size in dataclasses.asdict(train.mesh).items())
    return f"{mesh}, remat {cost.config.model.remat}, batch {train.batch_size:,} in {train.microbatches}"


def _flops(flops: float) -> str:
    """2.19 TFLOP, 143.31 PFLOP."""
    return _scaled(flops / 1e6, 1_000, ("MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def _size(size: float) -> str:
    """5.93 GiB, 312 MiB."""
    return _scaled(size, 1024, ("bytes", "KiB", "MiB", "GiB"))


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < 1_000:
            return f"{value:.3g} {unit}"
        value /= step
    return f"{value:,.2f} {units[-1]}"
