"""Several processes that train or evaluate one model together: how they meet, agree and part.

A function that communicates is called by every process, in the same order; with one process none of them costs
anything. Process 0 is the one that writes what is not sharded, and that speaks.
"""

import concurrent.futures
import functools
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from coca_jax.errors import CocaError

# A process that says nothing for so long is dead: the others are ended (jax.distributed aborts them, status 134), and
# the launcher starts all again. On CPUs a broken connection tells them at once.
HEARTBEAT_SECONDS = 60
_JOINING_SECONDS = 300  # how much later than the first process the last one may start
_WORKING_SECONDS = 60  # after which process 0 tells those that wait for it that it is still at work
_ADDRESS, _COUNT, _INDEX = VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Makes this process one of several; to be called once, before anything else uses jax.

    On TPU pods (GKE's too), and under Slurm and Open MPI, jax finds the others itself. Elsewhere the environment says
    where they are: `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
      CocaError: the variables are incomplete or make no sense, or the others cannot be reached.
    """
    where = _from_environment()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # CPUs have several, and use none by default
    # jax's own preemption service takes SIGTERM for itself; `trainer.preemption` does its work.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **where, initialization_timeout=_JOINING_SECONDS, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise CocaError(
            f"--distributed found no cluster ({str(error).rstrip('.')}): outside TPU pods and Slurm set "
            f"{', '.join(VARIABLES)} for each process"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CocaError(
            f"the other processes were not reached in {_JOINING_SECONDS} seconds ({reason}): check that all are "
            f"started, and that process 0 can be reached at its address"
        ) from None


def _from_environment() -> dict[str, str | int]:
    """The arguments of jax.distributed.initialize; what is missing in it, jax finds out itself."""
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given.keys() & {_COUNT, _INDEX}:
        return {}  # jax reads the address itself, where a cluster's own is to be overridden
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        verb = "is" if len(given) == 1 else "are"
        raise CocaError(f"{' and '.join(given)} {verb} set but not {missing[0]}: set all three")
    address, count, index = (given[name] for name in VARIABLES)
    if not re.fullmatch(r".+:\d+", address):
        raise CocaError(f"{_ADDRESS}={address} is no address: write host:port of process 0, such as 10.0.0.1:8476")
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise CocaError(f"{_INDEX}={index} of {_COUNT}={count} cannot be: processes count from 0 to {int(count) - 1}")
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}


def is_joined() -> bool:
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this is process 0."""
    return jax.process_index() == 0


def name() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def leave() -> None:
    """Parts from the others once all are ready to: process 0 takes the service that they all need with it."""
    if is_joined():
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("leave")
        jax.distributed.shutdown()


def abandon(status: int) -> None:
    """Ends this process of several at once, without waiting for others that may be stuck or gone."""
    if is_first():
        time.sleep(2)  # lets those that fail for the same reason say so, before they lose the service
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def from_first(make: Callable[[], bytes]) -> bytes:
    """What `make` gives on process 0, the only one that calls it, in a thread.

    It may take hours: on CPUs a process that waits in one collective for 30 minutes gives up.

    Raises:
      CocaError: on every process, where `make` raises one.
    """
    if jax.process_count() == 1:
        return make()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    making = [pool.submit(_answer, make)] if is_first() else []
    pool.shutdown(wait=False)
    done = False
    while not done:
        ended = concurrent.futures.wait(making, _WORKING_SECONDS).done  # at once, where there is nothing to wait for
        done = bool(multihost_utils.broadcast_one_to_all(np.int32(len(ended))))
    answer = making[0].result() if making else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(answer))))
    answer = multihost_utils.broadcast_one_to_all(np.frombuffer(answer or bytes(size), np.uint8)).tobytes()
    if answer[:1] == b"-":
        raise CocaError(answer[1:].decode())
    return answer[1:]


def _answer(make: Callable[[], bytes]) -> bytes:
    try:
        return b"+" + make()
    except CocaError as error:
        return b"-" + str(error).encode()


def check_same(value: str, message: str) -> None:
    """Raises CocaError with `message` on every process, where not all have the same `value`."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    if (multihost_utils.process_allgather(own) != own).any():
        raise CocaError(message)


def from_each(own: bytes) -> list[bytes]:
    """What each process gives, in their order."""
    if jax.process_count() == 1:
        return [own]
    sizes = multihost_utils.process_allgather(np.int32(len(own))).reshape(-1)
    if not sizes.any():
        return [b""] * len(sizes)
    padded = np.frombuffer(own.ljust(sizes.max(), b"\0"), np.uint8)
    return [row[:size].tobytes() for row, size in zip(multihost_utils.process_allgather(padded), sizes, strict=True)]


def check_shared(folder: epath.Path) -> None:
    """Makes the folder, and checks that it is the same one for all processes.

    Raises:
      CocaError: on every process, where some do not see what process 0 writes.
    """
    if jax.process_count() == 1:
        folder.mkdir(parents=True, exist_ok=True)
        return
    token = from_first(lambda: _write_token(folder)).decode()
    seen = multihost_utils.process_allgather(np.array((folder / token).exists())).reshape(-1)
    multihost_utils.sync_global_devices("token seen")
    if is_first():
        (folder / token).unlink()
    if not seen.all():
        raise CocaError(
            f"{folder} is not one folder for all hosts (process {int(np.argmin(seen))} does not see what process 0 "
            f"writes): give --workdir a folder that all of them share, or a bucket"
        )


def _write_token(folder: epath.Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    token = f".seen-by-all-{os.getpid()}-{time.time_ns()}"
    (folder / token).write_text("")
    return token.encode()


@functools.lru_cache(maxsize=16)  # a run has few batch sizes, and asks at each step
def local_rows(sharding: Sharding, batch_size: int) -> np.ndarray:
    """Which rows of a batch the devices of this process hold, ascending.

    Neighbouring processes need not hold neighbouring rows (a mesh follows the machine's wiring), and with a tensor axis
    across processes several hold the same ones.
    """
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    rows = np.unique(np.concatenate([np.arange(batch_size)[index] for index in parts]))
    rows.flags.writeable = False
    return rows


def global_batch(sharding: Sharding, batch_size: int, local: np.ndarray) -> jax.Array:
    """The global array [batch_size, …] of which each process gives its `local_rows`, [rows, …]."""
    rows = local_rows(sharding, batch_size)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        first = int(np.searchsorted(rows, start))
        return local[first : first + stop - start]

    return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)
