"""Files and output of an evaluation: evaluation.json, the report, captions for servers, TensorBoard, a table."""

import json
import logging
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

from etils import epath

from coca_jax.errors import CocaError
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.submissions import write_captions
from coca_jax.evaluation.tasks.base import DatasetResult, metric_text
from coca_jax.inference.model import Coca
from coca_jax.pages.terminal import text_table
from coca_jax.storage.files import as_path, write_atomically
from coca_jax.trainer.writers import read_history

Value = float | int | str | None

_log = logging.getLogger(__name__)


def flat_metrics(results: Sequence[DatasetResult]) -> dict[str, float]:
    """The metrics of all datasets in one dict; keys begin with the dataset's name."""
    return {key: value for result in results for key, value in result.metrics.items()}


def write_results(
    folder: epath.Path,
    coca: Coca,
    results: Sequence[DatasetResult],
    title: str,
    *,
    name: str = "",
    checkpoint: str,
) -> None:
    """Writes the metrics as JSON, the report, and captions as COCO's and NoCaps' servers take them.

    Metrics of the same model that an earlier evaluation left in the file are kept, unless they are measured anew.

    Args:
      folder: of the files.
      coca: the model that was evaluated.
      results: of each dataset.
      title: of the report.
      name: empty for the run's own evaluation, `evaluation.json` and `report.html`; or else for `evaluation_<name>.json` …
      checkpoint: the folder of the run that the model comes from; with step and digest it identifies the model, and the
        report shows its curves.
    """
    suffix = f"_{name}" if name else ""
    identity: dict[str, Value] = {
        "checkpoint": checkpoint,
        "checkpoint_digest": coca.digest,
        "checkpoint_step": coca.step,
    }
    file = folder / f"evaluation{suffix}.json"
    write_evaluation(file, {**_earlier_metrics(file, coca), **flat_metrics(results), **identity})
    for result in results:
        if result.server_captions:
            path = folder / f"captions_{result.name}_results.json"
            write_captions(path, result.server_captions)
            if result.unreadable:
                lost = sum(result.unreadable.values())
                _log.warning("%s lacks %d images that could not be read: servers refuse it so", path, lost)
            _log.info("captions for COCO's or NoCaps' server: %s", path)
    report = folder / f"report{suffix}.html"
    facts = {"checkpoint": f"{checkpoint}, step {coca.step:,}, digest {coca.digest}"} | _facts(coca)
    write_report(report, title=title, results=results, history=read_history(as_path(checkpoint)), facts=facts)
    _log.info("the report is %s", report)


def write_evaluation(path: str | os.PathLike, values: Mapping[str, Value]) -> None:
    """Writes flat keys such as "digit_scenes/caption_equivalent" and "checkpoint_step" to a JSON file, atomically.

    A number that is not finite becomes null, since JSON has none.
    """
    bad = [key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    clean = {**values, **dict.fromkeys(bad)}
    write_atomically(path, json.dumps(clean, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_evaluation(path: str | os.PathLike) -> dict[str, Value]:
    """The object that `write_evaluation` wrote.

    Raises:
      CocaError: the file is missing or holds anything but one flat JSON object.
    """
    try:
        values = json.loads(as_path(path).read_bytes())
    except FileNotFoundError:
        raise CocaError(f"there is no {path}: run python -m coca_jax.evaluate first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CocaError(f"{path} is not JSON ({error}): evaluate again to write it anew") from None
    if not isinstance(values, dict) or any(isinstance(value, (dict, list)) for value in values.values()):
        raise CocaError(f"{path} does not hold one flat object of numbers: evaluate again to write it anew")
    return values


def write_tensorboard(folder: epath.Path, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics at `step` to the events of `folder`/tensorboard, on a disk or in a bucket."""
    from tensorboardX import SummaryWriter  # keeps start-up light

    with tempfile.TemporaryDirectory(prefix="coca_jax-") as temporary:
        with SummaryWriter(temporary, filename_suffix=".evaluation") as writer:
            for key, value in metrics.items():
                if math.isfinite(value):
                    writer.add_scalar(key, value, step)
        for path in pathlib.Path(temporary).iterdir():
            copy = folder / "tensorboard" / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def results_table(results: Sequence[DatasetResult]) -> str:
    """One line a metric: dataset, metric, value and baseline; shares in percent."""
    rows = [("dataset", "metric", "value", "baseline")]
    for result in results:
        for key, value in result.metrics.items():
            baseline = metric_text(key, result.baselines[key]) if key in result.baselines else ""
            rows.append((result.name, key.rpartition("/")[2], metric_text(key, value), baseline))
    return text_table(rows, "<<>>")


def _earlier_metrics(file: epath.Path, coca: Coca) -> dict[str, Value]:
    """The metrics of the same model in the file of an earlier evaluation; none if there is none, or it is damaged."""
    try:
        values = read_evaluation(file)
    except (CocaError, OSError):
        return {}
    same = values.get("checkpoint_digest") == coca.digest and values.get("checkpoint_step") == coca.step
    return values if same else {}


def _facts(coca: Coca) -> dict[str, str]:
    """The report's facts of the model and the run, by label."""
    model, train = coca.config.model, coca.config.train
    return {
        "training steps": f"{coca.step:,} of {train.steps:,}, {train.batch_size} pairs each",
        "parameters": f"{coca.parameter_count:,}",
        "image encoder": f"{model.image.kind}, {model.image.size} px, patch {model.image.patch}, stem {model.image.stem}, "
        f"{model.image.layers} layers",
        "poolers": f"{model.pooler.kind}, {model.pooler.queries} generative queries",
        "text decoder": f"{model.text.unimodal_layers} unimodal and {model.text.multimodal_layers} multimodal layers, "
        f"{model.text.length} tokens",
        "width": f"{model.width}, {model.heads} heads",
        "vocabulary": f"{coca.vocabulary.size} pieces",
        "optimizer": f"{coca.config.optimizer.name}, peak learning rate {coca.config.optimizer.peak_learning_rate:g}",
        "seed": str(train.seed),
    }
