"""Orbax checkpoints: parameters, average, optimiser, step, data position, config and vocabulary, saved as one.

A run's folder holds them in `checkpoints/<step>/`. Saving is asynchronous; a step's folder gets its name only when all
of it is written, so a kill at any moment leaves the last good checkpoint as it was. Each process writes and reads the
parts of the arrays that its devices hold: all call everything here together.
"""

import base64
import contextlib
import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.config import Config
from coca_jax.distributed.sharding import shardings
from coca_jax.errors import CocaError
from coca_jax.objectives.base import merge, split
from coca_jax.storage.files import as_path, is_remote, write_atomically
from coca_jax.trainer.state import TrainState, average_of
from coca_jax.trainer.train_step import TrainStep

FOLDER = "checkpoints"
BEST = "best.json"  # beside the folder: step, metric and value of the best checkpoint
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A checkpoint's description of its run, beside the arrays."""

    config: Config
    vocabulary: bytes  # the SentencePiece model
    data_fingerprint: str  # identifies the training records, so that a resumed run reads the same ones
    classes: tuple[str, ...] = ()  # what the outputs of the head stand for: class names or answers


class Checkpoints:
    """The checkpoints of the run in a folder. The oldest but `keep` are deleted once a newer one is complete, and the best
    one never; see `offer`.

    `save`, `check` and `close` raise the errors of the system and of tensorstore: see `workdir.writing`.
    """

    def __init__(self, folder: epath.Path, keep: int):
        _check_access(folder)
        self._best_file, self._best = folder / BEST, _read_best(folder)
        kept = policies.AnyPreservationPolicy([policies.LatestN(keep), _KeepBest(lambda: self._best)])
        options = ocp.CheckpointManagerOptions(preservation_policy=kept, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder / FOLDER, options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, record: RunRecord) -> None:
        """Starts to save; returns when `state` may be overwritten. A save of the same step is not repeated."""
        if step in self._manager.all_steps():
            return
        items = {"params": state.params, "optimizer": {"step": state.step, "state": state.opt_state}}
        if state.average is not None:
            items["average"] = state.average
        run = {
            "format": _FORMAT,
            "config": dataclasses.asdict(record.config),
            "data": {"position": step * record.config.train.batch_size, "fingerprint": record.data_fingerprint},
            "classes": list(record.classes),
            "vocabulary": base64.b64encode(record.vocabulary).decode(),
        }
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._manager.save(step, args=ocp.args.Composite(run=ocp.args.JsonSave(run), **arrays))

    def offer(self, step: int, metric: str, value: float) -> bool:
        """Makes a saved step the best one unless an earlier one had as high a value of the metric; returns whether it is."""
        if self._best is not None and self._best["metric"] == metric and not value > self._best["value"]:
            return False
        self._best = {"step": step, "metric": metric, "value": value}
        if jax.process_index() == 0:
            write_atomically(self._best_file, json.dumps(self._best) + "\n")
        return True

    def restore(self, number: int, step: TrainStep) -> TrainState:
        """The state at step `number`; an average that was not kept begins at the parameters. With the errors of `load`."""
        state = step.state
        items = {"params": state.params, "optimizer": {"step": state.step, "state": state.opt_state}}
        if state.average is not None and self.record(number).config.optimizer.ema_decay:
            items["average"] = state.average
        restored = _restore(self._manager, number, items)
        params, average, optimizer = restored["params"], restored.get("average"), restored["optimizer"]
        if state.average is not None and average is None:
            average = average_of(step.objective, params)
        return TrainState(optimizer["step"], params, average, optimizer["state"])

    def record(self, step: int) -> RunRecord:
        return _record(self._manager, step)

    def check(self) -> None:
        """Raises the error of a background save, if there was one."""
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the save that is under way."""
        self._manager.wait_until_finished()
        self._manager.close()


@dataclasses.dataclass(frozen=True)
class _KeepBest:
    """Orbax' policy that keeps the best checkpoint."""

    best: Callable[[], dict[str, Any] | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        best = self.best()
        return [best is not None and one.step == best["step"] for one in checkpoints]


def _read_best(folder: epath.Path) -> dict[str, Any] | None:
    return json.loads((folder / BEST).read_text()) if (folder / BEST).exists() else None


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint for use: the parameters that evaluations use, and the description of their run."""

    record: RunRecord
    params: Any
    step: int


def load(path: str | os.PathLike, mesh: jax.sharding.Mesh | None = None) -> Restored:
    """Restores a checkpoint from its folder alone.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket. Of several
        checkpoints the best one, if `train.keep_best` names a metric, or else the last one.
      mesh: the devices to lay the parameters out on; by default they come to the default device.

    Raises:
      CocaError: there is no checkpoint, it is incomplete, or it was written by another version of coca_jax.
    """
    with _open(path) as (manager, step):
        record = _record(manager, step)
        objective = objectives.build(record.config)
        params, logical = objective.abstract_parameters()
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = shardings(mesh, logical) if mesh else jax.tree.map(lambda _: device, params)
        target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, placed)
        trained, frozen = split(objective, target)
        averaged = bool(record.config.optimizer.ema_decay)
        items = {"average": trained} if averaged else {}
        if frozen or not averaged:
            items["params"] = target
        restored = _restore(manager, step, items)
    return Restored(record, merge(restored.get("average", {}), restored.get("params", {})), step)


def load_record(path: str | os.PathLike) -> RunRecord:
    """The description of the run, from the checkpoint that `load` would restore, with its errors."""
    with _open(path) as (manager, step):
        return _record(manager, step)


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """The folder's manager, and the number of the checkpoint that `path` names, or of the best or else the latest."""
    root, step = as_path(path), None
    _check_access(root)
    if not root.is_dir():
        raise CocaError(f"{root} is not a folder: give a run's folder, such as runs/quickstart")
    if root.name.isdigit() and (root / "run").is_dir():
        root, step = root.parent, int(root.name)
    elif (root / FOLDER).is_dir():
        root /= FOLDER
    # Nothing is written; read_only=True would log three warnings at each call.
    with ocp.CheckpointManager(root, options=ocp.CheckpointManagerOptions(create=False)) as manager:
        if step is None:
            best = _read_best(root.parent) or {}
            step = best["step"] if best.get("step") in manager.all_steps() else manager.latest_step()
        if step is None:
            raise CocaError(f"{path} holds no complete checkpoint: give the --workdir of a run that has saved one")
        yield manager, step


def _check_access(path: epath.Path) -> None:
    if str(path).startswith("gs://"):
        try:
            importlib.metadata.version("google-cloud-storage")
        except importlib.metadata.PackageNotFoundError:
            needed = "needs the package google-cloud-storage: pip install google-cloud-storage"
            raise CocaError(f"{path} {needed}") from None


def _restore(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> Any:
    """Restores items of a checkpoint: arrays as these abstract trees."""
    arguments = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
    try:
        for name in items:
            _check_files(manager.directory / str(step) / name)
        return manager.restore(step, args=ocp.args.Composite(**arguments))
    except Exception as error:  # Orbax raises all kinds, Exception itself among them
        raise _incomplete(manager, step, error) from error


def _check_files(folder: epath.Path) -> None:
    """Raises FileNotFoundError if a file is missing that the arrays saved in `folder` lie in.

    Orbax reads all arrays at once and at the first error closes the event loop to which tensorstore still reports the
    other reads, each then with an exception of its own.
    """
    store = tensorstore.KvStore.open(f"{folder if is_remote(folder) else folder.as_uri()}/").result()
    present = {name.decode() for name in store.list().result()}
    places = ["manifest::manifest.ocdbt:0:0"]  # of the tree's nodes and of values: KIND:FOLDER:NAME:OFFSET:LENGTH
    while places:
        place = places.pop()
        kind, parent, name, *_ = place.split(":")
        if parent + name not in present:
            raise FileNotFoundError(f"{folder.name}/{parent}{name} is missing")
        if kind != "value":
            node = tensorstore.ocdbt.dump(store, None if kind == "manifest" else place).result()
            places += [text for text in jax.tree.leaves(node) if isinstance(text, str) and text.count(":") == 4]


def _record(manager: ocp.CheckpointManager, step: int) -> RunRecord:
    try:
        run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
        if run["format"] != _FORMAT:
            raise CocaError(f"it has the format {run['format']}, and this version reads {_FORMAT}")
        config = config_lib.from_config_dict(run["config"])
        classes = tuple(run.get("classes", ()))
        return RunRecord(config, base64.b64decode(run["vocabulary"]), run["data"]["fingerprint"], classes)
    except CocaError as error:
        path = manager.directory / str(step)
        raise CocaError(f"{path} was written by another version of coca_jax ({error}): read it with that one") from None
    except Exception as error:
        raise _incomplete(manager, step, error) from error


def _incomplete(manager: ocp.CheckpointManager, step: int, error: Exception) -> CocaError:
    reason = (str(error.args[0] if error.args else error).splitlines() or [""])[0][:200]
    return CocaError(
        f"the checkpoint {manager.directory / str(step)} is incomplete or damaged ({type(error).__name__}: {reason}): copy "
        "it again as a whole, or remove this folder to use the checkpoint before it"
    )
