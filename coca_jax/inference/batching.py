"""A model's function over any number of rows: batches of one size, spread over a mesh, the last one padded."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from coca_jax.distributed import processes as hosts
from coca_jax.distributed import sharding


class Batcher:
    """Applies functions of parameters and rows, batch by batch.

    On a mesh each batch is spread over the devices, and each process gets all of the results. Processes that share a mesh
    must ask the same of it, in the same order.

    Attributes:
      size: rows that a function is given at a time.
    """

    def __init__(
        self, params: Any, mesh: jax.sharding.Mesh | None, size: int, between: Callable[[], None] = lambda: None
    ):
        """Nothing is computed yet.

        Args:
          params: the functions' first argument, lying on the mesh.
          mesh: None: one device.
          size: is rounded up to divide over the mesh.
          between: called before each batch; what it raises ends the work.
        """
        self._params, self._mesh, self._between = params, mesh, between
        # A batch divides over the mesh, the last one too.
        self._multiple = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        self.size = -(-size // self._multiple) * self._multiple

    def __call__(self, function: Callable, *arrays: Any) -> np.ndarray:
        """`function(params, *rows)` over all rows of the arrays, [N, …] each: [N, …].

        An array may be anything with a shape that is indexed by rows: each process touches those alone that its devices
        hold. The last batch is padded, to a power of two, so that few sizes are ever compiled.
        """
        count = len(arrays[0])
        if not count:
            one = [jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype) for array in arrays]
            shape = jax.eval_shape(function, self._params, *one)
            return np.zeros((0, *shape.shape[1:]), shape.dtype)
        outputs = []
        for start in range(0, count, self.size):
            real = min(count - start, self.size)
            parts = -(-real // self._multiple)
            padded = min(self.size, self._multiple << (parts - 1).bit_length())
            rows = start + np.minimum(np.arange(padded), real - 1)  # the last row again and again
            self._between()
            outputs.append(self._call(function, arrays, rows)[:real])
        return np.concatenate(outputs)

    def remade(self, function: Callable) -> "Batcher":
        """The same with `function` of the parameters, computed here and now, in their place."""
        other = copy.copy(self)
        with contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh):
            other._params = function(self._params)
        return other

    def _call(self, function: Callable, arrays: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        if self._mesh is None:
            return np.asarray(function(self._params, *[array[rows] for array in arrays]))
        with jax.set_mesh(self._mesh):
            placed = sharding.batch_sharding(self._mesh)
            local = rows[hosts.local_rows(placed, len(rows))]
            spread = [hosts.global_batch(placed, len(rows), array[local]) for array in arrays]
            return multihost_utils.process_allgather(function(self._params, *spread), tiled=True)
