"""Evaluates a checkpoint on the held-out sets of its run: evaluation.json and report.html.

    python -m coca_jax.evaluate --checkpoint=runs/quickstart

On several devices the model is spread over all of them; on many machines start it with --distributed, once each.
"""

from absl import flags

from coca_jax import command_line

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A run's folder, or one checkpoint below its checkpoints folder.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; by default the run's own.")
_DATA_PATH = flags.DEFINE_string("data_path", None, "Where the data lies now, if not where it lay in training.")
_DISTRIBUTED = command_line.define_distributed()


def evaluate(checkpoint: str, output: str, data_path: str | None) -> None:
    """Evaluates `checkpoint` with its run's config and writes the results into the folder `output`."""
    import dataclasses

    from coca_jax import hosts, inference
    from coca_jax.evaluation.run import RunEvaluation, write_results
    from coca_jax.files import as_path

    coca = inference.load(checkpoint, all_devices=True)
    config = coca.config
    if data_path:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=data_path))
    results = RunEvaluation(config)(coca)
    if hosts.is_first():
        folder = as_path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_results(folder, coca, results, title=as_path(checkpoint).name)


def main(arguments: list[str]) -> None:
    command_line.no_more(arguments)
    checkpoint = command_line.required(_CHECKPOINT)
    with command_line.among_hosts(_DISTRIBUTED):
        evaluate(checkpoint, _OUTPUT.value or checkpoint, _DATA_PATH.value)


if __name__ == "__main__":
    command_line.run(main)
