"""Counts the floating-point operations of a program from its jaxpr, each loop's body as often as it runs.

XLA's own `cost_analysis` counts a scan's body once. Counted are matrix products and convolutions, two operations for each
multiplication with its addition; elementwise operations are about one per cent of a transformer's.
"""

import math
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count(function: Any, *arguments: Any) -> float:
    """FLOPs of one call of a function with arrays or ShapeDtypeStructs, over all devices of the current mesh, without
    operations that no result needs. A ValueError if a loop with products has no length known beforehand."""
    closed = jax.make_jaxpr(function)(*arguments)
    # XLA drops these; a rematerialised block has some.
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _of_jaxpr(jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, outputs = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2.0 * math.prod(outputs) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        # Each output number sums over the kernel's window and input channels; zeros that pad the input are counted.
        kernel, outputs = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        return 2.0 * math.prod(outputs) * math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
    inside = [_of_jaxpr(jaxpr) for jaxpr in core.jaxprs_in_params(params)]
    if name == "scan":
        return params["length"] * sum(inside)
    if name == "cond":
        return max(inside)
    if name == "while" and any(inside):
        raise ValueError("a while loop with matrix products has no length that is known beforehand")
    if name == "shard_map":  # its shapes are those of one device along these axes
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"]) * sum(inside)
    return sum(inside)
