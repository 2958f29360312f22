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
from coca_jax.trainer.state import TrainState

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

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state at `step`, laid out like `abstract`; an average that the run did not keep begins anew.

        Raises:
          CocaError: the checkpoint is incomplete.
        """
        items = {"params": abstract.params, "optimizer": {"step": abstract.step, "state": abstract.opt_state}}
        if abstract.average is not None and self.record(step).config.optimizer.ema_decay:
            items["average"] = abstract.average
        restored = _restore(self._manager, step, items)
        average = restored.get("average")
        if abstract.average is not None and average is None:
            # Copies: the step gives the memory of both back.
            trained, _ = 
        return TrainState(
            step=restored["optimizer"]["step"],
            params=restored["params"],
            average=average,
            opt_state=restored["optimizer"]["state"],
        )
