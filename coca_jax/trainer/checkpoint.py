"""Orbax checkpoints: parameters, average, optimiser, step, data position, config and vocabulary, saved as one.

A run's folder holds them in `checkpoints/<step>/`. Saving is asynchronous; a step's folder gets its name only when all
of it is written, so a kill at any moment leaves the last good checkpoint as it was. Every restore goes through an
abstract target of our own, so a checkpoint loads onto any mesh.

Of several processes each writes and reads the parts of the arrays that its devices hold: all call everything here
together.
"""

import base64
import dataclasses
import importlib.util
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from coca_jax import config as config_lib
from coca_jax.config import Config
from coca_jax.distributed.sharding import shardings
from coca_jax.errors import CocaError
from coca_jax.models import coca
from coca_jax.objectives import pretraining
from coca_jax.storage.files import as_path
from coca_jax.trainer.state import TrainState

FOLDER = "checkpoints"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a checkpoint says of its run beside the arrays.

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
      CocaError: the folder is in a bucket, and what reads buckets is not installed.
    """

    def __init__(self, folder: epath.Path, keep: int):
        _check_access(folder)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder / FOLDER, options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, record: RunRecord) -> None:
        """Starts to save; returns when `state` may be overwritten. A save of the same step is not repeated."""
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
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state at `step`, laid out as `abstract` says."""
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore({"step": abstract.step, "state": abstract.opt_state}),
        }
        if abstract.average is not None:
            items["average"] = ocp.args.StandardRestore(abstract.average)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(
            step=restored["optimizer"]["step"],
            params=restored["params"],
            average=restored["average"] if abstract.average is not None else None,
            opt_state=restored["optimizer"]["state"],
        )

    def record(self, step: int) -> RunRecord:
        return _record(self._manager, step)

    def check(self) -> None:
        """Raises what went wrong in a background save, if anything did."""
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the save that is under way."""
        self._manager.wait_until_finished()
        self._manager.close()


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint for use: the parameters that evaluations use, and what is needed to run them."""

    record: RunRecord
    params: Any
    step: int


def load(path: str | os.PathLike, mesh: jax.sharding.Mesh | None = None) -> Restored:
    """Restores a checkpoint from nothing but its folder.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket.
      mesh: what to lay the parameters out on; by default they come to the default device.

    Raises:
      CocaError: there is no checkpoint, or it is not one that this version reads.
    """
    manager, step = _open(path)
    record = _record(manager, step)
    params, logical = coca.abstract_parameters(coca.build(record.config.model, pretraining.branches(record.config)))
    if mesh is None:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(lambda _: device, params)
    else:
        placed = shardings(mesh, logical)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, placed)
    item = "average" if record.config.optimizer.ema_decay else "params"
    restored = manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(target)}))
    manager.close()
    return Restored(record, restored[item], step)


def load_record(path: str | os.PathLike) -> RunRecord:
    """What the checkpoint that `load` would restore says beside its arrays.

    Raises:
      CocaError: as `load`.
    """
    manager, step = _open(path)
    record = _record(manager, step)
    manager.close()
    return record


def _open(path: str | os.PathLike) -> tuple[ocp.CheckpointManager, int]:
    _check_access(as_path(path))
    root, step = _locate(as_path(path))
    # Nothing is saved, so nothing is written; read_only=True would say so in three warnings at each call.
    manager = ocp.CheckpointManager(root, options=ocp.CheckpointManagerOptions(create=False))
    step = manager.latest_step() if step is None else step
    if step is None:
        raise CocaError(f"{path} holds no complete checkpoint: train a little longer, or give another folder")
    return manager, step


def _check_access(path: epath.Path) -> None:
    try:
        found = not str(path).startswith("gs://") or importlib.util.find_spec("google.cloud.storage")
    except ModuleNotFoundError:  # not even a package above it
        found = None
    if not found:
        raise CocaError(f"{path} needs the package google-cloud-storage: pip install google-cloud-storage")


def _locate(path: epath.Path) -> tuple[epath.Path, int | None]:
    """The folder that holds the numbered checkpoints, and the number where `path` names one."""
    if not path.is_dir():
        raise CocaError(f"{path} is not a folder: give a run's folder, such as runs/quickstart")
    if path.name.isdigit() and (path / "run").is_dir():
        return path.parent, int(path.name)
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    if not any(child.name.isdigit() and (child / "run").is_dir() for child in root.iterdir()):
        raise CocaError(f"{path} holds no checkpoint: give the folder that --workdir named when the model was trained")
    return root, None


def _record(manager: ocp.CheckpointManager, step: int) -> RunRecord:
    run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
    if run["format"] != _FORMAT:
        raise CocaError(
            f"the checkpoint has format {run['format']}, this version of coca_jax reads {_FORMAT}: update it"
        )
    return RunRecord(
        config=config_lib.from_config_dict(run["config"]),
        vocabulary=base64.b64decode(run["vocabulary"]),
        data_fingerprint=run["data"]["fingerprint"],
    )
