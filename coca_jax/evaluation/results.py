"""Files and output of an evaluation: evaluation.json, the report, files for servers, TensorBoard, a table."""

import json
import logging
import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.tasks.base import DatasetResult, metric_text
from coca_jax.inference.model import Coca
from coca_jax.pages.terminal import text_table
from coca_jax.storage.files import as_path, write_atomically
from coca_jax.trainer.writers import read_history

_CLASSES = 12  # that the report's facts name
_log = logging.getLogger(__name__)
_SUBMISSIONS = {  # the keys of a row, and who takes the file, by the kind of its texts
    "captions": ("image_id", "caption", "COCO's or NoCaps' server"),
    "answers": ("question_id", "answer", "VQA's server"),
}


def flat_metrics(results: Sequence[DatasetResult]) -> dict[str, float]:
    """The metrics of all datasets in one dict; keys begin with the dataset's name."""
    return {key: value for result in results for key, value in result.metrics.items()}


def write_results(
    folder: epath.Path, coca: Coca, results: Sequence[DatasetResult], title: str, *, name: str = "", checkpoint: str
) -> None:
    """Writes the metrics as JSON, the report, and captions and answers as COCO's, NoCaps' and VQA's servers take them.

    Metrics of the same model that an earlier evaluation left in the file are kept, unless they are measured anew.

    Args:
      title: of the report.
      name: empty for the run's own evaluation, `evaluation.json` and `report.html`; or else for `evaluation_<name>.json` …
      checkpoint: the folder of the run that the model comes from; with step and digest it identifies the model, and the
        report shows its curves.
    """
    suffix = f"_{name}" if name else ""
    identity = {"checkpoint": checkpoint, "checkpoint_digest": coca.digest, "checkpoint_step": coca.step}
    _write_metrics(folder / f"evaluation{suffix}.json", flat_metrics(results), identity)
    for result in results:
        for kind, texts in result.submissions.items():
            path = folder / f"{kind}_{result.name}_results.json"
            _write_submission(path, kind, texts)
            if lost := sum(result.unreadable.values()):
                _log.warning("%s lacks %d records that could not be read: servers refuse it so", path, lost)
            _log.info("%s for %s: %s", kind, _SUBMISSIONS[kind][2], path)
    report = folder / f"report{suffix}.html"
    facts = {"checkpoint": f"{checkpoint}, step {coca.step:,}, digest {coca.digest}"} | _facts(coca)
    write_report(report, title=title, results=results, history=read_history(as_path(checkpoint)), facts=facts)
    _log.info("the report is %s", report)


def _write_metrics(file: epath.Path, metrics: Mapping[str, float], identity: Mapping[str, Any]) -> None:
    """Writes evaluation.json, with the metrics that an earlier evaluation of the same model left there."""
    try:
        earlier = json.loads(file.read_bytes())
        same = all(earlier[key] == identity[key] for key in ("checkpoint_digest", "checkpoint_step"))
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged
        same = False
    finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}  # as JSON has no NaN
    values = {**(earlier if same else {}), **finite, **identity}
    write_atomically(file, json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _write_submission(path: epath.Path, kind: str, texts: Mapping[int, str]) -> None:
    """Writes [{"image_id": 42, "caption": "a dog"}, …], or the keys of another kind; white space is one space."""
    number_key, text_key, _ = _SUBMISSIONS[kind]
    rows = [{number_key: int(number), text_key: " ".join(texts[number].split())} for number in sorted(texts)]
    write_atomically(path, json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n")


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


def _facts(coca: Coca) -> dict[str, str]:
    """The report's facts of the model and the run, by label."""
    model, train, optimizer = coca.config.model, coca.config.train, coca.config.optimizer
    image, text = model.image, model.text
    return {
        **_objective_facts(coca),
        "training steps": f"{coca.step:,} of {train.steps:,}, {train.batch_size} examples each",
        "parameters": f"{coca.parameter_count:,}",
        "image encoder": f"{image.kind}, {image.size} px, patch {image.patch}, stem {image.stem}, {image.layers} layers",
        "poolers": f"{model.pooler.kind}, {model.pooler.queries} generative queries",
        "text decoder": f"{text.unimodal_layers} unimodal and {text.multimodal_layers} multimodal layers, "
        f"{text.length} tokens",
        "width": f"{model.width}, {model.heads} heads",
        "vocabulary": f"{coca.vocabulary.size} pieces",
        "optimizer": f"{optimizer.name}, peak learning rate {optimizer.peak_learning_rate:g}",
        "seed": str(train.seed),
    }


def _objective_facts(coca: Coca) -> dict[str, str]:
    """The objective, the run that it started from, and what a head was trained for."""
    objective, classes = coca.config.objective, coca.classes
    facts = {"objective": objective.name}
    if start := coca.config.train.init_from:
        facts["adapted from"] = start
    if objective.has_head:
        rate = objective.head.encoder_learning_rate
        facts["pretrained parameters"] = f"peak learning rate {rate:g}" if rate else "frozen"
        more = f" … {classes[-1]}" if len(classes) > _CLASSES else ""
        facts["classes"] = f"{len(classes):,}: {', '.join(classes[:_CLASSES])}{more}"
    return facts
