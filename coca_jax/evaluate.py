r"""Evaluates a checkpoint: on the held-out sets of its run, or on any sets of a file of configs/eval/.

    python -m coca_jax.evaluate --checkpoint=runs/quickstart
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/coco.py --config.datasets.coco.dataset.path=FOLDER
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet.py:names=FOLDER --datasets=imagenet_v2

The first writes evaluation.json and report.html, the second evaluation_coco.json and report_coco.html, with events for
TensorBoard; both print a table. On several devices the model is spread over all of them; on many machines start it with
--distributed, once each.
"""

import typing
from pathlib import PurePath

from absl import flags
from ml_collections import config_flags

from coca_jax.cli import app as command_line
from coca_jax.config import Config, EvaluationConfig

if typing.TYPE_CHECKING:
    from coca_jax.evaluation.dataset import EvaluationSet

_CHECKPOINT = command_line.define_checkpoint()
_CONFIG = command_line.define_config("configs/eval")
_DATASETS = flags.DEFINE_list(
    "datasets", [], "Names of the datasets to evaluate on, with commas between them; by default all."
)
_OUTPUT = command_line.define_path("output", "Folder of the results; by default the run's own.")
_DATA_PATH = command_line.define_path("data_path", "Where the data lies now, if not where it lay in training.")
_DISTRIBUTED = command_line.define_distributed()


def evaluate(
    checkpoint: str,
    output: str,
    data_path: str | None = None,
    *,
    config: EvaluationConfig | None = None,
    name: str = "",
    sets: tuple[str, ...] = (),
) -> None:
    """Evaluates `checkpoint` and writes the results into the folder `output`.

    Args:
      checkpoint: a run's folder or one of its checkpoints.
      output: it is made.
      data_path: where the run's data lies now.
      config: what to evaluate instead of the run's own sets.
      name: of that config, for the files' names.
      sets: the names of those sets that are wanted; empty: all.

    Raises:
      CocaError: something is missing; or some sets failed, after the results of the others are written.
    """
    from coca_jax.distributed import processes as hosts
    from coca_jax.errors import CocaError
    from coca_jax.evaluation import results, run
    from coca_jax.evaluation.open_dataset import named_sets
    from coca_jax.inference import model as inference
    from coca_jax.storage.files import as_path
    from coca_jax.trainer.checkpoint import load_record

    # The sets first: what is missing must not show after a large model was loaded.
    own = load_record(checkpoint).config
    size, folder = own.model.image.size, as_path(output)
    if config is None:
        found, gallery, batch_size = _own_sets(own, data_path, sets), own.evaluation.gallery, 0
        run.check_same_sets(found)
    else:
        found = named_sets(config, size)
        gallery, batch_size = config.gallery, config.batch_size
    coca = inference.load(checkpoint, all_devices=True, batch_size=batch_size)
    evaluated = run.evaluate_sets(coca, found, gallery, folder if config else None)
    _ = coca.digest  # made by all processes together, for the first to write it
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        of_run = as_path(_run_folder(checkpoint))
        run.write_results(folder, coca, evaluated, of_run.name, name=name, checkpoint=str(of_run))
        metrics = run.flat_metrics(evaluated)
        if config is not None:
            results.write_tensorboard(folder, coca.step, metrics)
        chance = {key: value for one in evaluated for key, value in one.chance.items()}
        print(results.table(metrics, chance), flush=True)
    failed = [one for one in evaluated if one.failed]
    if failed:
        hosts.check_same("written", "the hosts do not agree")  # the first is done: none leaves before
        raise CocaError(
            f"{', '.join(one.name for one in failed)} could not be evaluated, the rest is written: {failed[0].failed}"
        )


def _own_sets(config: Config, data_path: str | None, wanted: tuple[str, ...]) -> "list[EvaluationSet]":
    """The held-out sets of a run's own config; those that are wanted, or all."""
    import dataclasses

    from coca_jax.errors import CocaError
    from coca_jax.evaluation.open_dataset import evaluation_sets

    if data_path:
        config = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, dataset=dataclasses.replace(config.data.dataset, path=data_path)),
        )
    found = evaluation_sets(config)
    names = [held_out.name for held_out in found]
    for name in wanted:
        if name not in names:
            raise CocaError(f"the run has no held-out set {name!r}: it has {', '.join(names)}; --config names others")
    return [held_out for held_out in found if not wanted or held_out.name in wanted]


def _run_folder(checkpoint: str) -> str:
    """The run's folder, where one of its checkpoints may be named: nothing of ours belongs into those."""
    from coca_jax.trainer.checkpoint import FOLDER

    parts = checkpoint.rstrip("/").split("/")
    for depth in (1, 2):  # RUN/checkpoints, RUN/checkpoints/600
        if len(parts) >= depth and parts[-depth] == FOLDER:
            return "/".join(parts[:-depth]) or ("/" if checkpoint.startswith("/") else ".")
    return checkpoint


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    checkpoint = command_line.required(_CHECKPOINT)
    names = tuple(_DATASETS.value)
    config = command_line.evaluation_config(_CONFIG, names) if _CONFIG.value is not None else None
    name = PurePath(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem if config else ""
    with command_line.among_hosts(_DISTRIBUTED):
        output = _OUTPUT.value or _run_folder(checkpoint)
        evaluate(checkpoint, output, _DATA_PATH.value, config=config, name=name, sets=names)


if __name__ == "__main__":
    command_line.run(main)
