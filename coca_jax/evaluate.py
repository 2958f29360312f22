"""Evaluates a checkpoint on the held-out sets of its run: evaluation.json and report.html.

    python -m coca_jax.evaluate --checkpoint=runs/quickstart
"""

import pathlib

from absl import flags

from coca_jax import command_line

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run's folder, or one checkpoint below its checkpoints folder.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; by default the run's own.")
_DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies now, if not where it lay in training.")


def main(arguments: list[str]) -> None:
    command_line.no_more(arguments)
    checkpoint = pathlib.Path(command_line.required(_CHECKPOINT))
    import dataclasses

    import coca_jax
    from coca_jax.evaluation.run import RunEvaluation, write_results

    coca = coca_jax.load(checkpoint)
    config = coca.config
    if _DATA_PATH.value:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=_DATA_PATH.value))
    folder = pathlib.Path(_OUTPUT.value or checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder, coca, RunEvaluation(config)(coca), title=checkpoint.absolute().name)


if __name__ == "__main__":
    command_line.run(main)
