"""Bytes that chips send each other in a step: collectives read from a compiled program's HLO text, loops multiplied.

JAX's cost and memory analyses do not count them. Understood are the forms that XLA prints for TPUs and CPUs in jaxlib
0.10: replica groups as lists, as iota ("[2,4]<=[8]") or as mesh axes, reduce-scatters that a fusion makes of an
all-reduce, and the TPU's asynchronous chains of fusions.
"""

import collections
import dataclasses
import functools
import math
import re

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|called_computation|async_execution_thread)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"\b(?:branch_computations|called_computations)=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.\-]+)"
)
_WHILE = re.compile(r" while\(.*\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_KNOWN_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"[su](?:32|64)\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in a step.

    Attributes:
      count: how often they run.
      bytes: sent by each chip, by the algorithms that send least (rings).
    """

    count: int = 0
    bytes: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.count + other.count, self.bytes + other.bytes)

    def times(self, count: int) -> "Traffic":
        return Traffic(self.count * count, self.bytes * count)


def of_hlo(text: str, devices: int) -> dict[str, Traffic]:
    """The traffic of a compiled program by kind of collective, in one execution.

    Args:
      text: `Compiled.as_text()`.
      devices: on how many it runs.

    Raises:
      ValueError: a loop with collectives in it has no trip count that can be read.
    """
    program = _computations(text)

    @functools.cache
    def total(name: str) -> dict[str, Traffic]:
        sums: dict[str, Traffic] = collections.defaultdict(Traffic)
        for line in program.lines[name]:
            for kind, traffic in _collective(line, name, program, devices):
                sums[kind] += traffic
            for called, count in _calls(line, program):
                for kind, traffic in total(called).items():
                    if count is None:
                        raise ValueError(f"the loop over {called} has no trip count that can be read")
                    sums[kind] += traffic.times(count)
        return dict(sums)

    return total(program.entry)


@dataclasses.dataclass(frozen=True)
class _Program:
    entry: str
    lines: dict[str, list[str]]  # of each computation


def _computations(text: str) -> _Program:
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name = head[2]
            lines[name] = []
            entry = name if head[1] else entry
        elif name and line.startswith("  "):
            lines[name].append(line)
    return _Program(entry, lines)


def _calls(line: str, program: _Program) -> list[tuple[str, int | None]]:
    """(computation, how often) that an instruction calls. Of a conditional every branch counts."""
    loop = _WHILE.search(line)
    if loop:
        return [(loop[2], _trip_count(line, loop[1], program))]
    names = [match[1] for match in _CALLED.finditer(line)]
    for match in _BRANCHES.finditer(line):
        names += re.findall(r"[\w.\-]+", match[1] or match[2])
    return [(name, 1) for name in names if name in program.lines]


def _trip_count(line: str, condition: str, program: _Program) -> int | None:
    known = _KNOWN_COUNT.search(line)
    if known:
        return int(known[1])
    # jax' loops count up from 0: the condition compares with the one constant in it.
    constants = [int(match[1]) for text in program.lines[condition] for match in _CONSTANT.finditer(text)]
    return constants[0] if len(constants) == 1 else None


def _collective(line: str, computation: str, program: _Program, devices: int) -> list[tuple[str, Traffic]]:
    """The collective that a line of HLO is; empty if it is none that counts."""
    instruction = _INSTRUCTION.match(line)
    if not instruction:
        return []
    # A TPU's asynchronous collective stands in a chain of fusions: where it starts, in what hides it, where it ends.
    if "chain_id=" in line and not any("AsyncCollectiveStart" in other for other in program.lines[computation]):
        return []
    shape, kind, start = instruction.groups()
    size, ways = _bytes(shape), _group_size(line, devices)
    if start and kind == "all-gather":  # its tuple holds the input, a part of the output, too
        size *= ways / (ways + 1)
    elif start and kind == "collective-permute":
        size /= 2
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind, size = "reduce-scatter", size / ways
    return [(kind, Traffic(1, _sent(kind, size, ways)))]


def _sent(kind: str, size: float, ways: int) -> float:
    """Bytes that each of `ways` chips sends in a collective whose result has `size` bytes a chip."""
    others = (ways - 1) / ways
    return {
        "all-gather": size * others,
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * (ways - 1),
        "all-to-all": size * others,
        "ragged-all-to-all": size * others,
    }.get(kind, size)


def _bytes(shape: str) -> float:
    total = 0.0
    for dtype, sizes in _ARRAY.findall(shape):
        width = 8 if dtype in ("pred", "token") else int(re.findall(r"\d+", dtype)[0])
        total += math.prod(map(int, filter(None, sizes.split(",")))) * width / 8
    return total


def _group_size(line: str, devices: int) -> int:
    """How many chips take part together."""
    groups = re.search(r"replica_groups=(\{\{[\d,]*\}|\{\}|\[\d+,\d+\]<=|mesh\[[^\]]*\])", line)
    if not groups:
        return devices
    text = groups[1]
    if text.startswith("mesh"):  # mesh['axis_0'=2,'axis_1'=4], device_ids=… {'axis_1'}: the axes in braces
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", text))
        named = re.search(r"\{('[^}]*)\}", line[groups.end() :])
        axes = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", named[1]) if named else []
        return math.prod(int(part or sizes[axis]) for axis, _, part in axes) if axes else devices
    if text.startswith("["):
        return int(text[1:].split(",")[1].split("]")[0])
    return len(re.findall(r"\d+", text)) or devices
