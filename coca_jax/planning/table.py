"""A plan for people, as a table, and for programs, as a dict."""

import dataclasses
from typing import Any

from coca_jax.pages.terminal import text_table
from coca_jax.planning.cost import COMFORTABLE, Cost


def table(cost: Cost) -> str:
    """The cost of a step as a page of text."""
    memory, bounds = cost.memory, cost.bounds
    devices, chip = cost.topology.devices, cost.topology.chip
    pairs = cost.pairs_per_second_per_chip
    more = cost.step_flops / cost.model_flops
    source = "estimated by arithmetic" if cost.compile_seconds is None else f"compiled in {cost.compile_seconds:.0f} s"
    sent = "not known" if cost.sent is None else _size(cost.sent)
    rows: list[tuple[str, str, str]] = [
        ("", "", ""),
        ("memory a chip", "", ""),
        ("  parameters", _size(memory.parameters), ""),
        ("  optimiser", _size(memory.optimizer), ""),
        ("  batch", _size(memory.batch), ""),
        ("  temporaries", _size(memory.temporaries), "activations, gradients, gathered parameters"),
        ("  program", _size(memory.code), ""),
        ("  peak", _size(memory.peak), f"{memory.share:.0%} of {_size(memory.available)}: {verdict(cost)}"),
        ("", "", ""),
        ("compute", "", ""),
        ("  a pair needs", _flops(cost.model_flops / cost.batch_size), "3 x the forward pass"),
        ("  a step needs", _flops(cost.model_flops), ""),
        ("  a step computes", _flops(cost.step_flops), f"{more:.2f} x, by remat and microbatches"),
        ("", "", ""),
        ("sent by each chip a step", sent, cost.unread),
        *(
            (f"  {kind}", _size(traffic.bytes), f"{traffic.count:,} times" if traffic.count else "")
            for kind, traffic in sorted((cost.traffic or {}).items(), key=lambda item: -item[1].bytes)
        ),
        ("", "", ""),
        ("roofline: bounds, not forecasts", "", ""),
        *(
            (f"  step, by {name}", f"> {1e3 * seconds:,.1f} ms", f"at {_peak(chip, name)}")
            for name, seconds in bounds.items()
        ),
        ("  MFU", f"< {cost.utilization:.1%}", ""),
        ("  pairs/s", f"< {pairs * devices:,.0f}", f"{pairs:,.1f} a chip"),
    ]
    return "\n".join((f"{cost.topology}, {devices:,} chips  {_settings(cost)}  {source}", text_table(rows, "<><")))


def verdict(cost: Cost) -> str:
    """Whether the step fits, in words."""
    if not cost.fits:
        return "does not fit"
    return "fits" if cost.memory.share <= COMFORTABLE else f"fits, with less than {1 - COMFORTABLE:.0%} to spare"


def as_dict(cost: Cost) -> dict[str, Any]:
    """The same for `json.dumps`: bytes a chip, FLOPs over all chips, seconds a step."""
    return {
        "topology": str(cost.topology),
        "chips": cost.topology.devices,
        "mesh": dict(zip(("data", "fsdp", "tensor"), cost.mesh, strict=True)),
        "remat": cost.remat,
        "batch_size": cost.batch_size,
        "microbatches": cost.microbatches,
        "compile_seconds": cost.compile_seconds,
        "fits": cost.fits,
        "memory": dataclasses.asdict(cost.memory) | {"share": cost.memory.share},
        "flops": {"model": cost.model_flops, "per_pair": cost.model_flops / cost.batch_size, "step": cost.step_flops},
        "traffic": None
        if cost.traffic is None
        else {kind: dataclasses.asdict(traffic) for kind, traffic in cost.traffic.items()},
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
    data, fsdp, tensor = cost.mesh
    return " ".join(
        f"--config.{key}={value}"
        for key, value in (
            ("train.mesh.data", data),
            ("train.mesh.fsdp", fsdp),
            ("train.mesh.tensor", tensor),
            ("model.remat", cost.remat),
            ("train.microbatches", cost.microbatches),
        )
    )


def line(cost: Cost) -> str:
    """One candidate of a search, as a line of the log."""
    how = "estimated" if cost.compile_seconds is None else f"compiled in {cost.compile_seconds:.0f} s"
    return (
        f"{_settings(cost)}: {how}, {_size(cost.memory.peak)} ({cost.memory.share:.0%}), MFU < {cost.utilization:.1%}"
    )


def _settings(cost: Cost) -> str:
    data, fsdp, tensor = cost.mesh
    parts = f"batch {cost.batch_size:,} in {cost.microbatches}"
    return f"data {data} x fsdp {fsdp} x tensor {tensor}, remat {cost.remat}, {parts}"


def _peak(chip: Any, name: str) -> str:
    if name == "compute":
        return f"{chip.flops / 1e12:,.0f} TFLOP/s"
    return f"{(chip.hbm_bandwidth if name == 'memory' else chip.network_bandwidth) / 1e9:,.0f} GB/s"


def _flops(flops: float) -> str:
    """2.19 TFLOP, 143 PFLOP."""
    flops /= 1e6
    for unit in ("MFLOP", "GFLOP", "TFLOP"):
        if flops < 1_000:
            return f"{flops:.3g} {unit}"
        flops /= 1_000
    return f"{flops:,.4g} PFLOP"


def _size(size: float) -> str:
    """5.93 GiB, 312 MiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2f} GiB"
