"""Few-shot classification: a logistic regression on the frozen embeddings of k training images of each class.

The linear probe of CLIP (arXiv 2103.00020, §3.2 and figure 6), on the contrastive embeddings. The embeddings are
standardised by the training images that were drawn, so that the same penalty suits any model.
"""

import warnings
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import TaskResult
from coca_jax.evaluation.tasks.classification import most_similar
from coca_jax.pages.blocks import Block, Columns, Heading, Table, Tile
from coca_jax.pages.charts import Line, line_chart, percent

_STEPS = 1_000  # of the optimiser, at most


class FewShot(NamedTuple):
    """The accuracies with k training images of each class, one for each draw."""

    shots: int  # k; 0: all
    images: int  # of all classes together
    accuracies: Sequence[float]

    @property
    def key(self) -> str:
        return f"k{self.shots}" if self.shots else "all"


class FewShotClassification:
    """The task; metrics are `few_shot_<name>_k5`, the mean over the draws, `…_k5_std`, and `few_shot_<name>_all`."""

    branch: ClassVar[str] = "contrastive"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        needed = dataset.training is not None
        return Needs(embeddings=needed, training=needed)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        metrics: dict[str, float] = {}
        baselines: dict[str, float] = {}
        tiles: list[Tile] = []
        columns: list[list[Block]] = []
        notes: list[str] = []
        for task in dataset.classifications if dataset.training else ():
            results = few_shot_results(dataset, predictions, task)
            if not results:
                notes.append(f"few_shot: no training image of {dataset.name} has a class by {task.name!r}")
                continue
            baseline, baseline_name = _baseline(task, predictions)
            for one in results:
                key = f"few_shot_{task.name}_{one.key}"
                metrics[key], baselines[key] = float(np.mean(one.accuracies)), baseline
                if one.shots:
                    metrics[f"{key}_std"] = float(np.std(one.accuracies))
            spoken = task.name.replace("_", " ").capitalize()
            how = f"{results[-1].shots or 'all'} training images a class, {len(task.candidate_classes):,} classes"
            tiles.append(Tile(spoken, float(np.mean(results[-1].accuracies)), how, baseline, baseline_name))
            columns.append(_blocks(spoken, results, baseline, baseline_name))
            notes += _few_images(dataset, predictions, task)
        return TaskResult(metrics, baselines, tiles, [Columns(columns)] if columns else [], notes)


def few_shot_results(dataset: EvaluationDataset, predictions: Predictions, task: Classification) -> list[FewShot]:
    """The accuracies on the held-out images by ascending k, all training images last; empty if none has a class.

    The draws of different k with the same number are nested, and follow from the config's seed alone.
    """
    config, targets = dataset.config.few_shot, _training_targets(dataset, predictions, task)
    places, right = predictions.part(task)
    held_out, training = predictions.image_embeddings[places], predictions.training_embeddings
    results = []
    for shots in sorted(set(config.shots), key=lambda k: k or np.inf) if (targets >= 0).any() else ():
        accuracies = []
        for repeat in range(config.repeats if shots else 1):
            order = np.random.default_rng((config.seed, repeat)).permutation(len(targets))
            drawn = order[classes.first_of_each(targets[order], shots or len(order))]
            predicted = _predicted(training[drawn], targets[drawn], held_out, config.logistic_c)
            accuracies.append(float((predicted[:, None] == right).any(axis=1).mean()))
        results.append(FewShot(shots, len(drawn), accuracies))
    return results


def _training_targets(dataset: EvaluationDataset, predictions: Predictions, task: Classification) -> np.ndarray:
    """The classes of the training images that could be read, int64 [T]."""
    assert dataset.training is not None
    return dataset.training.targets[task.name][predictions.training_rows]


def _predicted(embeddings: np.ndarray, targets: np.ndarray, held_out: np.ndarray, logistic_c: float) -> np.ndarray:
    """The classes of held-out embeddings by a logistic regression on labelled ones, int64 [m]."""
    from sklearn.linear_model import LogisticRegression  # takes a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if (targets == targets[0]).all():  # the regression refuses a single class
        return np.full(len(held_out), targets[0])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=logistic_c, max_iter=_STEPS))
    with warnings.catch_warnings():  # one image a class looks to scikit-learn like targets of a regression
        warnings.filterwarnings("ignore", message="The number of unique classes is greater", category=UserWarning)
        return regression.fit(embeddings, targets).predict(held_out)


def _baseline(task: Classification, predictions: Predictions) -> tuple[float, str]:
    """The accuracy of the same model without training images, if known, or of always the most frequent class; its name."""
    if task.name in predictions.classifiers:
        return float(np.mean(most_similar(task, predictions).ranks < 1)), "zero-shot"
    _, right = predictions.part(task)
    counts = np.bincount(right[right >= 0])
    return float(counts.max(initial=0) / max(1, len(right))), "most frequent class"


def _few_images(dataset: EvaluationDataset, predictions: Predictions, task: Classification) -> list[str]:
    """Sentences on classes that have no training image, or fewer than the config names."""
    most, targets = max(dataset.config.few_shot.shots), _training_targets(dataset, predictions, task)
    counts = np.bincount(targets[targets >= 0], minlength=len(task.labels))[task.candidate_classes]
    few, none = int(((counts > 0) & (counts < most)).sum()), int((counts == 0).sum())
    of_all = f"of {len(counts):,} classes of {dataset.name} by {task.name!r}"
    sentences = (
        [f"few_shot: {few:,} {of_all} have fewer than {most} training images and train with those"] if few else []
    )
    if none:
        sentences.append(f"few_shot: {none:,} {of_all} have no training image and are never the answer")
    return sentences


def _blocks(spoken: str, results: Sequence[FewShot], baseline: float, baseline_name: str) -> list[Block]:
    rows = [
        (
            f"{one.shots or 'all'}",
            percent(float(np.mean(one.accuracies))),
            percent(float(np.std(one.accuracies))) if one.shots else "",
            f"{one.images:,}",
        )
        for one in results
    ]
    curve = [
        {"step": one.shots, "few_shot": float(np.mean(one.accuracies)), "baseline": baseline}
        for one in results
        if one.shots
    ]
    lines = [Line("few-shot", "few_shot", "line-1"), Line(baseline_name, "baseline", "line-2")]
    detail = f"Logistic regression on frozen embeddings; {baseline_name} {percent(baseline)}."
    return [
        Heading(f"{spoken}, few-shot", detail),
        Table(("Training images a class", "Right", "± over draws", "Training images"), rows, "Few-shot accuracy"),
        *line_chart(curve, lines, "Accuracy by training images a class", percent),
    ]
