"""A run in one process or several, without tensorflow: host_worker.py FOLDER STEPS FSDP TENSOR [--distributed]."""

import pathlib
import sys
import types

import jax
import numpy as np

from coca_jax import command_line, config as config_lib, hosts, sharding
from coca_jax.files import as_path
from coca_jax.models import coca
from coca_jax.trainer import objective, optimizer, preemption, state, step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.loop import Loop
from coca_jax.trainer.metrics import MetricsWriter, Writer


def config(steps: int, fsdp: int = 1, tensor: int = 1) -> config_lib.Config:
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=16, patch=8, layers=1, mlp=32)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=32, length=8, unimodal_layers=1, multimodal_layers=1, mlp=32)
    values.optimizer.update(name="adamw", peak_learning_rate=1e-2, warmup_fraction=0.0)
    values.train.update(steps=steps, batch_size=8, checkpoint_every=3, log_every=1)
    values.train.mesh.update(fsdp=fsdp, tensor=tensor)
    return config_lib.from_config_dict(values)


def batches(c: config_lib.Config, rows: np.ndarray, start: int):
    """These rows of the batches from `start` on, each a function of its step."""
    while True:
        rng = np.random.default_rng(start)
        size, length = c.model.image.size, c.model.text.length
        text = rng.integers(4, c.model.text.vocabulary_size, (c.train.batch_size, length)).astype(np.int32)
        text[np.arange(length) >= rng.integers(3, length + 1, (c.train.batch_size, 1))] = 0
        image = rng.integers(0, 256, (c.train.batch_size, size, size, 3)).astype(np.uint8)
        yield {"image": image[rows], "text": text[rows]}
        start += 1


def train(folder: pathlib.Path, c: config_lib.Config) -> int:
    mesh = sharding.make_mesh(c.train.mesh, c.model)
    folder = as_path(folder)
    hosts.check_shared(folder)
    checkpoints = Checkpoints(folder, keep=2)
    model = coca.build(c)
    optimiser = optimizer.build(c.optimizer, c.train.steps)
    plan = state.plan(model, optimiser, False, mesh)
    start = checkpoints.latest_step() or 0
    new = lambda: MetricsWriter(folder, start_step=start, steps=c.train.steps, tensorboard=False)
    writer = new() if hosts.is_first() else Writer()
    rows = hosts.local_rows(sharding.batch_sharding(mesh), c.train.batch_size)
    train_step = step.train_step(c, objective.Pretraining(model, c.loss, 0), optimiser)
    record = RunRecord(c, hosts.from_first(lambda: b"the first one's"), "data")
    try:
        with preemption.Preemption() as stop, jax.set_mesh(mesh):
            of_step = lambda at: batches(c, rows, at)
            Loop(c, record, mesh, plan, train_step, of_step, checkpoints, writer, stop, lambda *_: None).run()
    except preemption.Preempted:
        return preemption.EXIT_STATUS
    finally:
        writer.close()
    return 0


def main(arguments: list[str]) -> int:
    folder, steps, fsdp, tensor, *distributed = arguments[1:]
    with command_line.among_hosts(types.SimpleNamespace(value=bool(distributed))):
        return train(pathlib.Path(folder), config(int(steps), int(fsdp), int(tensor)))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
