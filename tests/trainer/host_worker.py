"""A run in one process or several, without tensorflow: host_worker.py FOLDER STEPS FSDP TENSOR [cached] [--distributed].

"cached" is a classification whose frozen encoder's features are kept, of records that come again in another order.
"""

import itertools
import pathlib
import sys
import types

import jax
import numpy as np
import tiny

from coca_jax import config as config_lib
from coca_jax.cli import app as command_line
from coca_jax.distributed import processes as hosts
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import make_mesh
from coca_jax.storage.files import as_path
from coca_jax.trainer import preemption, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.loop import Loop
from coca_jax.trainer.writers import MetricsWriter


def config(steps: int, fsdp: int = 1, tensor: int = 1, ema_decay: float = 0.0) -> config_lib.Config:
    train = dict(train__steps=steps, train__checkpoint_every=3, train__log_every=1)
    return tiny.config(
        optimizer__name="adamw",
        **train,
        train__mesh__fsdp=fsdp,
        train__mesh__tensor=tensor,
        optimizer__ema_decay=ema_decay,
    )


def cached(c: config_lib.Config) -> config_lib.Config:
    """The same run as a classification with kept features."""
    values = config_lib.to_config_dict(c)
    values.objective.name, values.objective.head.classes, values.train.cache_features = "classification", 3, True
    values.data.dataset.update(format="folder", path="none", label_field="none")
    return config_lib.from_config_dict(values)


def batches(c: config_lib.Config, rows: np.ndarray, start: int, known=None):
    """These rows of the batches from `start` on, each a function of its step."""
    for at in itertools.count(start):
        batch = tiny.batch(c, at) if known is None else _records(c, at, known)
        yield {key: value[rows] for key, value in batch.items()}


def _records(c: config_lib.Config, step: int, known) -> dict[str, np.ndarray]:
    """A batch of ten records, an epoch after another; of known ones the image is not decoded."""
    whole = tiny.batch(tiny.config(train__batch_size=10))
    places = step * c.train.batch_size + np.arange(c.train.batch_size)
    index = np.array([np.random.default_rng(place // 10).permutation(10)[place % 10] for place in places])
    image = np.stack([np.zeros_like(whole["image"][0]) if known(0, int(i)) else whole["image"][i] for i in index])
    record = np.stack([np.zeros_like(index), index], axis=1).astype(np.int32)
    return {"image": image, "label": (index % 3).astype(np.int32), "record": record}


def train(folder: pathlib.Path, c: config_lib.Config) -> int:
    mesh = make_mesh(c.train.mesh, c.model)
    folder = as_path(folder)
    hosts.check_shared(folder)
    checkpoints = Checkpoints(folder, keep=2)
    start = checkpoints.latest_step() or 0

    def new():
        return MetricsWriter(folder, start_step=start, steps=c.train.steps, tensorboard=False)

    writer = new() if hosts.is_first() else None
    rows = hosts.local_rows(sharding.batch_sharding(mesh), c.train.batch_size)
    record = RunRecord(c, hosts.from_first(lambda: b"the first one's"), "data")
    try:
        with preemption.Preemption() as stop, jax.set_mesh(mesh):

            def of_step(at, **known):
                return batches(c, rows, at, **known)

            Loop(train_step.build(c, mesh), record, of_step, checkpoints, writer, stop, lambda *_: None).run()
    except preemption.Preempted:
        return preemption.EXIT_STATUS
    finally:
        if writer:
            writer.close()
    return 0


def main(arguments: list[str]) -> int:
    folder, steps, fsdp, tensor, *options = arguments[1:]
    with command_line.among_hosts(types.SimpleNamespace(value="--distributed" in options)):
        c = config(int(steps), int(fsdp), int(tensor))
        return train(pathlib.Path(folder), cached(c) if "cached" in options else c)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
