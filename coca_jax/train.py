"""Trains a CoCa, evaluates it, and writes its report.

    python -m coca_jax.train --config=configs/quickstart.py --workdir=runs/quickstart --config.train.steps=500

The same command continues a run that was stopped, by Ctrl-C, SIGTERM (exit status 75) or anything else. The folder then
holds metrics.jsonl, tensorboard/, checkpoints/, model_info.txt, evaluation.json and report.html.
"""

import logging
import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from coca_jax import command_line
from coca_jax.config import Config

_log = logging.getLogger("coca_jax.train")  # __name__ is __main__ here

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/; override with --config.key=value.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made where it does not exist.")


def train(config: Config, folder: pathlib.Path) -> int:
    """Runs `config` in `folder` to its last step, evaluation and report; returns the exit status."""
    # Imported here: jax and tensorflow take seconds, which a mistyped flag need not wait for.
    import jax

    from coca_jax import sharding
    from coca_jax.data.pipeline import Pipeline
    from coca_jax.evaluation.run import RunEvaluation, flat_metrics, write_results
    from coca_jax.inference import Coca
    from coca_jax.models import coca as models
    from coca_jax.run_setup import checked_vocabulary
    from coca_jax.trainer import objective, optimizer, preemption, state, step
    from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
    from coca_jax.trainer.loop import Loop
    from coca_jax.trainer.metrics import MetricsWriter, write_model_info

    mesh = sharding.make_mesh(config.train.mesh)
    sharding.check_batch_size(mesh, config.train.batch_size, config.train.microbatches)
    checkpoints = Checkpoints(folder, config.train.keep_checkpoints)
    vocabulary = checked_vocabulary(config, checkpoints)
    pipeline = Pipeline(
        config, vocabulary, host_index=jax.process_index(), host_count=jax.process_count()
    )
    evaluation = RunEvaluation(config)  # before training: missing held-out data must not show at the end
    record = RunRecord(config, vocabulary.model_bytes, pipeline.fingerprint)
    model = models.build(config)
    optimiser = optimizer.build(config.optimizer, config.train.steps)
    plan = state.plan(model, optimiser, bool(config.optimizer.ema_decay), mesh)
    write_model_info(folder / "model_info.txt", plan.abstract.params, plan.logical)
    writer = MetricsWriter(
        folder,
        start_step=checkpoints.latest_step() or 0,
        steps=config.train.steps,
        tensorboard=config.train.tensorboard,
    )

    def evaluate(at_step: int, params: Any) -> None:
        coca = Coca(config, params, vocabulary, at_step)
        results = evaluation(coca)
        writer.write_evaluation(at_step, flat_metrics(results))
        write_results(folder, coca, results, title=folder.name)

    pretraining = objective.Pretraining(model, config.loss, vocabulary.pad_id)
    train_step = step.train_step(config, pretraining, optimiser)
    try:
        with preemption.Preemption() as stop, jax.set_mesh(mesh):
            loop = Loop(config, record, mesh, plan, train_step, pipeline.iterate, checkpoints, writer, stop, evaluate)
            final = loop.run()
            with stop.immediate():
                evaluate(config.train.steps, final.evaluated_params)
    except preemption.Preempted:
        return preemption.EXIT_STATUS
    finally:
        writer.close()
        for cause, count in pipeline.skipped.by_cause.items():
            _log.warning("skipped %d record%s: %s", count, "s" * (count > 1), cause)
    return 0


def main(arguments: list[str]) -> int | None:
    command_line.no_more(arguments)
    config = command_line.config(_CONFIG)
    return train(config, pathlib.Path(command_line.required(_WORKDIR)))


if __name__ == "__main__":
    command_line.run(main)
