"""A model from a checkpoint's folder alone."""

import contextlib
import os

import jax
from absl import logging as absl_logging

from coca_jax.config import MeshConfig
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.distributed.mesh import make_mesh
from coca_jax.inference.model import Coca
from coca_jax.trainer import checkpoint


def load(path: str | os.PathLike, *, all_devices: bool = False, batch_size: int = 0) -> Coca:
    """Restores the model of a checkpoint.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket (gs://…).
      all_devices: whether to spread the work, and a large model, over all devices of all processes.
      batch_size: see `Coca`.

    Raises:
      CocaError: there is no checkpoint, or it is damaged.
    """
    path = os.path.expanduser(path)
    with contextlib.ExitStack() as stack:
        verbosity = absl_logging.get_verbosity()
        stack.callback(absl_logging.set_verbosity, verbosity)
        # Orbax warns of copies without their _CHECKPOINT_METADATA.
        absl_logging.set_verbosity(min(verbosity, absl_logging.ERROR))
        mesh = None
        if all_devices and jax.device_count() > 1:
            mesh = make_mesh(MeshConfig(), checkpoint.load_record(path).config.model)
        restored = checkpoint.load(path, mesh)
    vocabulary = Vocabulary(restored.record.vocabulary)
    config, classes = restored.record.config, restored.record.classes
    return Coca(config, restored.params, vocabulary, restored.step, mesh=mesh, batch_size=batch_size, classes=classes)
