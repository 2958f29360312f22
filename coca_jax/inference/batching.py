"""Functions of a model over any number of rows: batches of one size, spread over a mesh, the last one padded."""

import contextlib
import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from coca_jax.distributed import processes as hosts
from coca_jax.distributed import sharding


class Batcher:
    """Applies functions of parameters and rows, batch by batch.

    On a mesh each batch is spread over the devices, and each process gets all results. Processes that share a mesh must
    make the same calls, in the same order.

    Args:
      params: the functions' first argument, placed on the mesh.
      mesh: None: one device.
      size: rows of a batch, rounded up to a multiple of the mesh's batch axes.
      between: called before each batch; an exception that it raises ends the work.
    """

    def __init__(
        self, params: Any, mesh: jax.sharding.Mesh | None, size: int, between: Callable[[], None] = lambda: None
    ):
        self._params, self._mesh, self._between = params, mesh, between
        # Every batch divides over the mesh, the last one too.
        self._multiple = 1 if mesh is None else sharding.ways(mesh, sharding.Axis.BATCH)
        self.size = -(-size // self._multiple) * self._multiple

    def __call__(self, function: Callable, *arrays: Any) -> np.ndarray:
        """`function(params, *rows)` over all rows of the arrays, [N, …] each: [N, …].

        An array may be any object with a shape that is indexed by rows: each process reads only those that its devices
        hold. The last batch is padded to a power of two, so that few sizes are compiled.
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
            rows = start + np.minimum(np.arange(padded), real - 1)  # padding repeats the last row
            self._between()
            outputs.append(self._call(function, arrays, rows)[:real])
        return np.concatenate(outputs)

    def remade(self, function: Callable) -> "Batcher":
        """A copy whose parameters are `function` of this one's, computed at once."""
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
            place = functools.partial(jax.make_array_from_process_local_data, placed)
            spread = [place(array[local], (len(rows), *array.shape[1:])) for array in arrays]
            return multihost_utils.process_allgather(function(self._params, *spread), tiled=True)
