"""Peak figures of accelerator chips, from their vendors: for utilisation, and for plans without the chip."""

import dataclasses

from coca_jax.errors import CocaError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of a chip, in FLOP/s, bytes and bytes/s."""

    name: str
    flops: float  # peak, dense, bfloat16
    hbm: int  # that a program can use
    hbm_bandwidth: float
    network_bandwidth: float  # to all neighbours together over the fast links (TPU: ICI, NVIDIA: NVLink), one way
    kinds: tuple[str, ...]  # prefixes of jax' `device_kind` for it
    torus: int = 0  # axes of the network between TPU chips; 0: a switch
    slices: str = ""  # prefix of Cloud TPU's names of slices, which a number of chips, or cores, follows: "v4-4096"
    units: int = 1  # chips or cores a chip that such a name counts: 1, or 2 if it counts cores


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5p,v5e,v6e}, read 2026-11, whose "bidirectional" network figures are halved.
# `hbm` is the available memory that libtpu 0.0.42 reports when a program does not fit, less than the printed sizes.
# H100 and H200 SXM: NVIDIA's data sheets; without sparsity, NVLink's 900 GB/s being both ways. Between nodes of 8 GPUs
# the network is slower: 50 GB/s each in a DGX H100.
_CHIPS = (
    Chip("v4", 275e12, round(30.75 * _GIB), 1.2e12, 3e11, ("TPU v4",), 3, "v4", 2),
    Chip("v5p", 459e12, round(95.74 * _GIB), 2.765e12, 6e11, ("TPU v5p", "TPU v5"), 3, "v5p", 2),
    Chip("v5e", 197e12, round(15.75 * _GIB), 0.819e12, 2e11, ("TPU v5e", "TPU v5 lite"), 2, "v5litepod"),
    Chip("v6e", 918e12, round(31.25 * _GIB), 1.64e12, 4e11, ("TPU v6e", "TPU v6 lite"), 2, "v6e"),
    Chip("h100", 989e12, 80 * 10**9, 3.35e12, 4.5e11, ("NVIDIA H100",)),
    Chip("h200", 989e12, 141 * 10**9, 4.8e12, 4.5e11, ("NVIDIA H200",)),
)


def chip(name: str) -> Chip:
    """The chip of a name; a CocaError if it is unknown."""
    chips = {chip.name: chip for chip in _CHIPS}
    if name.lower() not in chips:
        raise CocaError(f"there are no figures for a chip {name!r}: choose one of {', '.join(chips)}")
    return chips[name.lower()]


def of_device_kind(kind: str) -> Chip | None:
    """The chip of jax' `device_kind`, such as "TPU v5 lite" or "NVIDIA H100 80GB HBM3"; None if it is unknown."""
    known = [(prefix, chip) for chip in _CHIPS for prefix in chip.kinds if kind.startswith(prefix)]
    return max(known, key=lambda pair: len(pair[0]))[1] if known else None
