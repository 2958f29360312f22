"""Several processes that train or evaluate one model together: joining, agreement, leaving.

A function that communicates is called by every process, in the same order. Process 0 writes what is not sharded, and logs.
"""

import concurrent.futures
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from coca_jax.errors import CocaError

# A process without a heartbeat for this long counts as dead: jax.distributed aborts the others (status 134), and the
# launcher restarts all. On CPUs a broken connection ends them at once.
_HEARTBEAT_SECONDS = 60
_JOINING_SECONDS = 300  # how much later than the first process the last one may start
_WORKING_SECONDS = 60  # between the signs of life of process 0 to those that wait for it
_ADDRESS, _COUNT, _INDEX = VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Makes this process one of several; to be called once, before anything else uses jax.

    On TPU pods (GKE's too), and under Slurm and Open MPI, jax finds the others itself. Elsewhere the environment names
    them: `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
      CocaError: the variables are incomplete or contradictory, or the others cannot be reached.
    """
    cluster = _from_environment()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # by default there is no implementation on CPUs
    # jax's own preemption service would handle SIGTERM, which `trainer.preemption` does here.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **cluster, initialization_timeout=_JOINING_SECONDS, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    except ValueError as error:
        todo = f"outside TPU pods and Slurm set {', '.join(VARIABLES)} for each process"
        raise CocaError(f"--distributed found no cluster ({str(error).rstrip('.')}): {todo}") from None
    except RuntimeError as error:
        missed = f"the other processes were not reached in {_JOINING_SECONDS} seconds ({str(error).splitlines()[0]})"
        raise CocaError(f"{missed}: check that all are started and can reach process 0 at its address") from None


def _from_environment() -> dict[str, Any]:
    """Arguments of jax.distributed.initialize; none if jax is to detect them."""
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given.keys() & {_COUNT, _INDEX}:
        return {}  # jax itself reads an address that overrides the cluster's
    for name in VARIABLES:
        if name not in given:
            raise CocaError(f"{name} is not set, unlike {' and '.join(given)}: set all three")
    address, count, index = (given[name] for name in VARIABLES)
    if not re.fullmatch(r".+:\d+", address):
        raise CocaError(f"{_ADDRESS}={address} is not an address: write host:port of process 0, such as 10.0.0.1:8476")
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise CocaError(f"{_INDEX}={index} is none of {_COUNT}={count} processes: they count from 0")
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}


def is_first() -> bool:
    """Whether this is process 0."""
    return jax.process_index() == 0


def name() -> str:
    """This process in log lines, such as "process 2 of 4"."""
    return f"process {jax.process_index()} of {jax.process_count()}"


def leave() -> None:
    """Disconnects from the others once all have called it: the service that they all need ends with process 0."""
    if jax.distributed.is_initialized():
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("leave")
        jax.distributed.shutdown()


def abandon(status: int) -> None:
    """Exits at once, without waiting for other processes, which may be stuck or gone."""
    if is_first():
        time.sleep(2)  # lets processes that fail for the same reason report it before they lose the service
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def from_first(make: Callable[[], bytes]) -> bytes:
    """The result of `make` on process 0, the only one that calls it, in a thread.

    `make` may take hours, but on CPUs no collective may wait for more than 30 minutes: until it is done, process 0
    broadcasts a sign of life each minute. A CocaError of `make` is raised on every process.
    """
    if jax.process_count() == 1:
        return make()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    futures = [pool.submit(_result, make)] if is_first() else []
    pool.shutdown(wait=False)
    done = False
    while not done:
        finished = concurrent.futures.wait(futures, _WORKING_SECONDS).done  # returns at once without futures
        done = bool(multihost_utils.broadcast_one_to_all(np.int32(len(finished))))
    result = futures[0].result() if futures else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(result))))
    result = multihost_utils.broadcast_one_to_all(np.frombuffer(result or bytes(size), np.uint8)).tobytes()
    if result[:1] == b"-":
        raise CocaError(result[1:].decode())
    return result[1:]


def _result(make: Callable[[], bytes]) -> bytes:
    try:
        return b"+" + make()
    except CocaError as error:
        return b"-" + str(error).encode()


def check_same(value: str, message: str) -> None:
    """Raises CocaError with `message` on every process if they do not all have the same `value`."""
    if len(set(from_each(hashlib.sha256(value.encode()).digest()))) > 1:
        raise CocaError(message)


def from_each(data: bytes) -> list[bytes]:
    """The `data` of all processes, in their order."""
    if jax.process_count() == 1:
        return [data]
    sizes = multihost_utils.process_allgather(np.int32(len(data))).reshape(-1)
    if not sizes.any():
        return [b""] * len(sizes)
    padded = np.frombuffer(data.ljust(sizes.max(), b"\0"), np.uint8)
    return [row[:size].tobytes() for row, size in zip(multihost_utils.process_allgather(padded), sizes, strict=True)]


def check_shared(folder: epath.Path) -> None:
    """Makes the folder; a CocaError on every process if some do not see there what process 0 writes."""
    if jax.process_count() == 1:
        folder.mkdir(parents=True, exist_ok=True)
        return

    def write_token() -> bytes:
        folder.mkdir(parents=True, exist_ok=True)
        token = f".seen-by-all-{os.getpid()}-{time.time_ns()}"
        (folder / token).write_text("")
        return token.encode()

    token = from_first(write_token).decode()
    seen = from_each(b"yes" if (folder / token).exists() else b"")
    if is_first():
        (folder / token).unlink()
    if not all(seen):
        raise CocaError(
            f"{folder} is not one folder for all hosts (process {seen.index(b'')} does not see what process 0 writes): "
            f"give --workdir a folder that all of them share, or a bucket"
        )


def local_rows(sharding: Sharding, batch_size: int) -> np.ndarray:
    """The rows of a batch that the devices of this process hold, ascending: for `jax.make_array_from_process_local_data`.

    Neighbouring processes need not hold neighbouring rows (a mesh follows the machine's wiring), and with a tensor axis
    across processes several hold the same ones.
    """
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in parts]))
