r"""Evaluates a checkpoint: on the held-out records of its run, or on the datasets of a file of configs/eval/.

    python -m coca_jax.evaluate --checkpoint=runs/quickstart
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/coco.py --config.datasets.coco.dataset.path=FOLDER
    python -m coca_jax.evaluate --checkpoint=RUN --config=configs/eval/imagenet.py:names=FOLDER --datasets=imagenet_v2

The first writes evaluation.json and report.html, the second evaluation_coco.json and report_coco.html, with events for
TensorBoard; both print a table. On several devices the model is spread over all of them; on many machines start it with
--distributed, once each.
"""

import os
import typing
from collections.abc import Sequence
from pathlib import PurePath

from absl import flags
from ml_collections import config_flags

from coca_jax.cli import app as command_line
from coca_jax.config import EvaluationConfig

if typing.TYPE_CHECKING:
    from etils import epath

    from coca_jax.evaluation.dataset import AnyDataset, EvaluationDataset
    from coca_jax.trainer.checkpoint import RunRecord

_CHECKPOINT = command_line.define_checkpoint()
_CONFIG = command_line.define_config("configs/eval")
_DATASETS = flags.DEFINE_list("datasets", [], "Names of the datasets, with commas between them; by default all.")
_OUTPUT = command_line.define_path("output", "Folder of the results; by default the run's own.")
_DATA_PATH = command_line.define_path("data_path", "Where the data lies now, if not where it lay in training.")
_DISTRIBUTED = command_line.define_distributed()


def evaluate(
    checkpoint: str,
    output: str | os.PathLike,
    data_path: str | None = None,
    *,
    config: EvaluationConfig | None = None,
    name: str = "",
    names: tuple[str, ...] = (),
) -> None:
    """Evaluates a run's folder or checkpoint and writes the results into the folder `output`.

    Args:
      config: the datasets to evaluate instead of the run's own.
      name: of that config, for the files' names.
      names: of the run's own datasets to evaluate; empty: all.

    Raises:
      CocaError: something is missing; or some datasets failed, after the results of the others are written.
    """
    from coca_jax.distributed import processes as hosts
    from coca_jax.errors import CocaError
    from coca_jax.evaluation import results as files
    from coca_jax.evaluation.open_dataset import named_datasets
    from coca_jax.evaluation.runner import evaluate_datasets
    from coca_jax.inference import loading
    from coca_jax.storage.files import as_path
    from coca_jax.trainer.checkpoint import load_record

    # The datasets first: what is missing must not show after a large model was loaded.
    record, folder = load_record(checkpoint), as_path(output)
    own = record.config
    datasets: Sequence[AnyDataset]
    if config is None:
        datasets, batch_size, gallery = _own_datasets(record, data_path, names), 0, own.evaluation.gallery
    else:
        datasets = named_datasets(config, own, record.classes)
        batch_size, gallery = config.batch_size, config.gallery
    coca = loading.load(checkpoint, all_devices=True, batch_size=batch_size)
    results = evaluate_datasets(coca, datasets, gallery)
    _ = coca.digest  # computed by all processes together, for the first to write it
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        run = _run_folder(checkpoint)
        files.write_results(folder, coca, results, run.name, name=name, checkpoint=str(run))
        if config is not None:
            files.write_tensorboard(folder, coca.step, files.flat_metrics(results))
        print(files.results_table(results), flush=True)
    failed = [one for one in results if one.failed]
    if failed:
        hosts.check_same("written", "the hosts do not agree")  # the first is done: none leaves before
        lost = ", ".join(one.name for one in failed)
        raise CocaError(f"{lost} could not be evaluated, the rest is written: {failed[0].failed}")


def _own_datasets(record: "RunRecord", data_path: str | None, names: tuple[str, ...]) -> "list[EvaluationDataset]":
    """The evaluation datasets of a run's own config: those of the names, or all."""
    import dataclasses

    from coca_jax.errors import CocaError
    from coca_jax.evaluation.open_dataset import run_datasets

    config = record.config
    if data_path and config.data.mixture:
        raise CocaError("the run trained on a mixture, of which --data_path moves nothing: put the data back instead")
    if data_path:
        dataset = dataclasses.replace(config.data.dataset, path=data_path)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, dataset=dataset))
    datasets = {dataset.name: dataset for dataset in run_datasets(config, record.classes)}
    if not datasets:
        raise CocaError("all records of the run train, none is held out: name datasets with --config=configs/eval/…")
    for name in names:
        if name not in datasets:
            known = ", ".join(datasets)
            raise CocaError(f"the run has no evaluation dataset {name!r}: it has {known}; --config names others")
    return [datasets[name] for name in datasets if not names or name in names]


def _run_folder(checkpoint: str) -> "epath.Path":
    """The run's folder, of which one checkpoint may be named: results do not belong into that."""
    from coca_jax.storage.files import as_path
    from coca_jax.trainer.checkpoint import FOLDER

    path = as_path(checkpoint)
    for folder in (path, path.parent):  # RUN/checkpoints, RUN/checkpoints/600
        if folder.name == FOLDER:
            return folder.parent
    return path


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    checkpoint = command_line.required(_CHECKPOINT)
    names = tuple(_DATASETS.value)
    config = command_line.evaluation_config(_CONFIG, names) if _CONFIG.value is not None else None
    name = PurePath(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem if config else ""
    with command_line.among_hosts(_DISTRIBUTED):
        output = _OUTPUT.value or _run_folder(checkpoint)
        evaluate(checkpoint, output, _DATA_PATH.value, config=config, name=name, names=names)


if __name__ == "__main__":
    command_line.run(main)
