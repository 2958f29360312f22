"""Orbax checkpoints: parameters, average, optimiser, step, data position, config and vocabulary, saved as one.

A run's folder holds them in `checkpoints/<step>/`. Saving is asynchronous; a step's folder gets its name only when all
of it is written, so a kill at any moment leaves the last good checkpoint as it was. Every restore goes through an
abstract target of our own, so a checkpoint loads onto any mesh.

Of several processes each writes and reads the parts of the arrays that its devices hold: all call everything here
together.
"""

import base64
import contextlib
import dataclasses
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.config import Config
from coca_jax.distributed.sharding import shardings
from coca_jax.errors import CocaError
from coca_jax.objectives.base import merge, split
from coca_jax.storage.files import as_path
from coca_jax.trainer.state import StatePlan, TrainState

FOLDER = "checkpoints"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A checkpoint's description of its run, beside the arrays.

    Attributes:
      config: the resolved configuration.
      vocabulary: the SentencePiece model's bytes.
      data_fingerprint: identifies the training records, so that a resumed run reads the same ones.
    """

    config: Config
    vocabulary: bytes
    data_fingerprint: str


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: the run's folder.
      keep: how many are kept; the oldest are deleted only after a newer one is complete.

    Raises:
      CocaError: the folder is in a bucket, and the package that reads buckets is not installed.
    """

    def __init__(self, folder: epath.Path, keep: int):
        _check_access(folder)
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder / FOLDER, options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, record: RunRecord) -> None:
        """Starts to save; returns when `state` may be overwritten. A save of the same step is not repeated.

        Raises:
          CocaError: the folder cannot be written; so do `check` and `close`.
        """
        if step in self._manager.all_steps():
            return
        items = {
            "params": ocp.args.StandardSave(state.params),
            "optimizer": ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
            "run": ocp.args.JsonSave(
                {
                    "format": _FORMAT,
                    "config": dataclasses.asdict(record.config),
                    "data": {"position": step * record.config.train.batch_size, "fingerprint": record.data_fingerprint},
                    "vocabulary": base64.b64encode(record.vocabulary).decode(),
                }
            ),
        }
        if state.average is not None:
            items["average"] = ocp.args.StandardSave(state.average)
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, plan: StatePlan) -> TrainState:
        """The state at `step`, laid out as planned. An average that the run has not kept so far begins at the parameters.

        Raises:
          CocaError: the checkpoint is incomplete.
        """
        abstract = plan.abstract
        items = {"params": abstract.params, "optimizer": {"step": abstract.step, "state": abstract.opt_state}}
        if abstract.average is not None and self.record(step).config.optimizer.ema_decay:
            items["average"] = abstract.average
        restored = _restore(self._manager, step, {name: ocp.args.StandardRestore(item) for name, item in items.items()})
        average = restored.get("average")
        if abstract.average is not None and average is None:
            # A copy: the step gives the memory of both back.
            average = jax.tree.map(jnp.copy, split(plan.objective, restored["params"])[0])
        return TrainState(
            step=restored["optimizer"]["step"],
            params=restored["params"],
            average=average,
            opt_state=restored["optimizer"]["state"],
        )

    def record(self, step: int) -> RunRecord:
        return _record(self._manager, step)

    def check(self) -> None:
        """Raises the error of a background save, if there was one."""
        with self._writing():
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the save that is under way."""
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore reports the system's errors as ValueErrors
            known = re.search(r"([^:]*) \[os_error_code=", str(error))
            if not known and not isinstance(error, OSError):
                raise
            reason = known[1].strip() if known else getattr(error, "strerror", None) or str(error)
            raise CocaError(
                f"a checkpoint cannot be written to {self._folder} ({reason}): make room or permit it, and the same "
                "command continues from the last good one"
            ) from error


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint for use: the parameters that evaluations use, and the description of their run."""

    record: RunRecord
    params: Any
    step: int


def load(path: str | os.PathLike, mesh: jax.sharding.Mesh | None = None) -> Restored:
    """Restores a checkpoint from its folder alone.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket.
      mesh: the devices to lay the parameters out on; by default they come to the default device.

    Raises:
      CocaError: there is no checkpoint, it is incomplete, or it was written by another version of coca_jax.
    """
    with _open(path) as (manager, step):
        record = _record(manager, step)
        objective = objectives.build(record.config)
        params, logical = objective.abstract_parameters()
        if mesh is None:
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            placed = jax.tree.map(lambda _: device, params)
        else:
            placed = shardings(mesh, logical)
        target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, placed)
        trained, frozen = split(objective, target)
        averaged = bool(record.config.optimizer.ema_decay)
        items = {"average": ocp.args.StandardRestore(trained)} if averaged else {}
        if frozen or not averaged:
            items["params"] = ocp.args.StandardRestore(target)
        restored = _restore(manager, step, items)
    return Restored(record, merge(restored.get("average", {}), restored.get("params", {})), step)


def load_record(path: str | os.PathLike) -> RunRecord:
    """The description of the run, from the checkpoint that `load` would restore.

    Raises:
      CocaError: as `load`.
    """
    with _open(path) as (manager, step):
        return _record(manager, step)


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """The folder's manager, and the number of the checkpoint that `path` names, or of the latest."""
    _check_access(as_path(path))
    root, step = _locate(as_path(path))
    # Nothing is written; read_only=True would log three warnings at each call.
    with ocp.CheckpointManager(root, options=ocp.CheckpointManagerOptions(create=False)) as manager:
        step = manager.latest_step() if step is None else step
        if step is None:
            raise CocaError(f"{path} holds no complete checkpoint: train a little longer, or give another folder")
        yield manager, step


def _check_access(path: epath.Path) -> None:
    try:
        reader = not str(path).startswith("gs://") or importlib.util.find_spec("google.cloud.storage")
    except ModuleNotFoundError:  # not even a package above it
        reader = None
    if not reader:
        raise CocaError(f"{path} needs the package google-cloud-storage: pip install google-cloud-storage")


def _locate(path: epath.Path) -> tuple[epath.Path, int | None]:
    """The folder that holds the numbered checkpoints, and the number if `path` names one."""
    if not path.is_dir():
        raise CocaError(f"{path} is not a folder: give a run's folder, such as runs/quickstart")
    if path.name.isdigit() and (path / "run").is_dir():
        return path.parent, int(path.name)
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    if not any(child.name.isdigit() and child.is_dir() for child in root.iterdir()):
        raise CocaError(f"{path} holds no checkpoint: give the folder that --workdir named when the model was trained")
    return root, None


def _restore(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> Any:
    try:
        return manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax raises all kinds, Exception itself among them
        raise _incomplete(manager, step, error) from error


def _record(manager: ocp.CheckpointManager, step: int) -> RunRecord:
    run = _restore(manager, step, {"run": ocp.args.JsonRestore()})["run"]
    try:
        if run["format"] != _FORMAT:
            raise CocaError(f"it has the format {run['format']}, and this version reads {_FORMAT}")
        config = config_lib.from_config_dict(run["config"])
        return RunRecord(config, base64.b64decode(run["vocabulary"]), run["data"]["fingerprint"])
    except CocaError as error:
        path = manager.directory / str(step)
        raise CocaError(f"{path} was written by another version of coca_jax ({error}): read it with that one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _incomplete(manager, step, error) from error


def _incomplete(manager: ocp.CheckpointManager, step: int, error: Exception) -> CocaError:
    reason = (str(error.args[0] if error.args else error).splitlines() or [""])[0][:200]
    return CocaError(
        f"the checkpoint {manager.directory / str(step)} is incomplete or damaged ({type(error).__name__}: {reason}): copy "
        "it again as a whole, or remove this folder to use the checkpoint before it"
    )
