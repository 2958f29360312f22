"""The evaluations of a run: every held-out set of its config, into `evaluation.json` and `report.html`."""

import logging
from collections.abc import Sequence

from etils import epath

from coca_jax.config import Config
from coca_jax.data.evaluation_sets import evaluation_sets
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.results import write_evaluation
from coca_jax.evaluation.suite import EvaluationResult, evaluate
from coca_jax.inference import Coca
from coca_jax.trainer.metrics import read_history

_log = logging.getLogger(__name__)


class RunEvaluation:
    """Evaluates a run's models on its held-out sets, which are read once (by every process, each in full).

    Raises:
      CocaError: the held-out records cannot be found.
    """

    def __init__(self, config: Config):
        self._gallery = config.evaluation.gallery
        self._sets = evaluation_sets(config)

    def __call__(self, coca: Coca) -> list[EvaluationResult]:
        return [evaluate(coca, held_out, self._gallery) for held_out in self._sets]


def flat_metrics(results: Sequence[EvaluationResult]) -> dict[str, float]:
    """The metrics of all sets in one dict; keys begin with the set's name."""
    return {key: value for result in results for key, value in result.metrics.items()}


def write_results(folder: epath.Path, coca: Coca, results: Sequence[EvaluationResult], title: str) -> None:
    """Writes `evaluation.json` and `report.html` into `folder`, and the main figures to the log."""
    metrics = flat_metrics(results)
    write_evaluation(folder / "evaluation.json", {**metrics, "checkpoint_step": coca.step})
    model, train = coca.config.model, coca.config.train
    info = {
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
    history = read_history(folder)
    write_report(folder / "report.html", title=title, results=results, history=history, info=info)
    for key, value in metrics.items():
        _log.info("%s = %.4g", key, value)
    _log.info("the report is %s", folder / "report.html")
