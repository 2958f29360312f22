"""Bytes that chips send each other in a step: collectives read from a compiled program's HLO text, loops multiplied.

Understood are the forms that XLA prints for TPUs and CPUs in jaxlib 0.10: replica groups as lists, as iota
("[2,4]<=[8]") or as mesh axes, reduce-scatters that a fusion makes of an all-reduce, the TPU's asynchronous chains.
"""

import dataclasses
import math
import re

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|\w+_computations?)=(\{[^}]*\}|%?[\w.\-]+)")
_WHILE = re.compile(r" while\(.*\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_KNOWN_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"[su](?:32|64)\[\]\S* constant\((\d+)\)")
# {{0,1},{2,3}}, or [2,4]<=[8], or mesh['axis_0'=2,'axis_1'=4], device_ids=… {'axis_1'} with the axes in braces.
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]<=|mesh\[([^\]]*)\].*?\{('[^}]*)\})")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in a step."""

    count: int  # how often they run
    bytes: float  # sent by each chip, by the algorithms that send least (rings)


def of_hlo(text: str, devices: int) -> dict[str, Traffic]:
    """The traffic of a compiled program by kind of collective, in one execution.

    Args:
      text: `Compiled.as_text()`.
      devices: on how many it runs.

    Raises:
      ValueError: a loop with collectives in it has no trip count that can be read.
    """
    parts = _COMPUTATION.findall(text)
    computations = {name: body.splitlines() for _, name, body in parts}
    found: dict[str, Traffic] = {}

    def add(name: str, times: int | None) -> None:
        for line in computations[name]:
            for kind, size in _collective(line, name, computations[name], devices):
                if times is None:
                    raise ValueError(f"the loop over {name} has no trip count that can be read")
                before = found.get(kind, Traffic(0, 0))
                found[kind] = Traffic(before.count + times, before.bytes + times * size)
            for called, count in _calls(line, computations):
                add(called, None if times is None or count is None else times * count)

    for entry, name, _ in parts:
        if entry:
            add(name, 1)
    return found


def _calls(line: str, computations: dict[str, list[str]]) -> list[tuple[str, int | None]]:
    """(computation, how often) that an instruction calls; of a conditional every branch counts, None is unknown."""
    loop = _WHILE.search(line)
    if not loop:
        names = [name for called in _CALLED.findall(line) for name in re.findall(r"[\w.\-]+", called)]
        return [(name, 1) for name in names if name in computations]
    condition, body = loop.groups()
    counts = _KNOWN_COUNT.findall(line)
    if not counts:  # jax' loops count up from 0: the condition compares with the one constant in it
        counts = [count for inner in computations[condition] for count in _CONSTANT.findall(inner)]
    return [(body, int(counts[0]) if len(counts) == 1 else None)]


def _collective(line: str, name: str, lines: list[str], devices: int) -> list[tuple[str, float]]:
    """(kind, bytes sent) of the collective that a line of the computation `name` is; empty if it is none that counts."""
    instruction = _INSTRUCTION.match(line)
    if not instruction:
        return []
    # A TPU's asynchronous collective stands in a chain of fusions: where it starts, in what hides it, where it ends.
    if "chain_id=" in line and not any("AsyncCollectiveStart" in other for other in lines):
        return []
    shape, kind, start = instruction.groups()
    size, ways = _bytes(shape), _group_size(line, devices)
    if start and kind == "all-gather":  # its tuple holds the input, a part of the output, too
        size *= ways / (ways + 1)
    elif start and kind == "collective-permute":
        size /= 2
    if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
        kind, size = "reduce-scatter", size / ways
    return [(kind, _sent(kind, size, ways))]


def _sent(kind: str, size: float, ways: int) -> float:
    """Bytes that each of `ways` chips sends in a collective whose result has `size` bytes a chip."""
    match kind:
        case "collective-permute" | "collective-broadcast":
            return size
        case "reduce-scatter":
            return size * (ways - 1)
        case "all-reduce":
            return 2 * size * (ways - 1) / ways
    return size * (ways - 1) / ways


def _bytes(shape: str) -> float:
    total = 0.0
    for dtype, sizes in _ARRAY.findall(shape):
        bits = 8 if dtype in ("pred", "token") else int(re.findall(r"\d+", dtype)[0])
        total += math.prod(map(int, filter(None, sizes.split(",")))) * bits / 8
    return total


def _group_size(line: str, devices: int) -> int:
    """How many chips take part together."""
    groups = _GROUPS.search(line)
    if not groups:
        return devices
    listed, iota, mesh, axes = groups.groups("")
    if axes:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes)  # 'axis_1':(2)4 is a part of an axis
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return int(iota) if iota else len(listed.split(","))
