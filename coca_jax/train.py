"""Trains a CoCa, evaluates it, and writes its report.

    python -m coca_jax.train --config=configs/quickstart.py --workdir=runs/quickstart --config.train.steps=500

The same command continues a run that was stopped, by Ctrl-C, SIGTERM (exit status 75) or anything else. The folder then
holds metrics.jsonl, tensorboard/, checkpoints/, model_info.txt, evaluation.json and report.html. On many machines start
it with --distributed, once a TPU host or GPU: see docs/launching.md.
"""

from coca_jax.cli import app as command_line
from coca_jax.config import Config

_CONFIG = command_line.define_config("configs")
_WORKDIR = command_line.define_path("workdir", "The run's folder, on a disk or in a bucket (gs://…); it is made.")
_DISTRIBUTED = command_line.define_distributed()


def train(config: Config, workdir: str) -> int:
    """Runs `config` in `workdir` to its last step, evaluation and report; returns the exit status."""
    # Imported here: jax and tensorflow take seconds, which a mistyped flag need not wait for.
    from coca_jax.cli.training_run import prepared
    from coca_jax.storage.files import as_path
    from coca_jax.trainer import preemption

    try:
        with preemption.Preemption() as stop, prepared(config, as_path(workdir), stop) as loop:
            final = loop.run()
            with stop.immediate():
                loop.evaluate(int(final.step), final.evaluated_params)
    except preemption.Preempted:
        return preemption.EXIT_STATUS
    return 0


def main(arguments: list[str]) -> int:
    command_line.reject_positional_arguments(arguments)
    config, workdir = command_line.config(_CONFIG), command_line.required(_WORKDIR)
    with command_line.among_hosts(_DISTRIBUTED):
        return train(config, workdir)


if __name__ == "__main__":
    command_line.run(main)
