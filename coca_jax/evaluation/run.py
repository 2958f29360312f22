"""The evaluations of a run or of a config of evaluations, one set after another, and what is written of them."""

import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np
from etils import epath

from coca_jax.config import Config
from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation import captioning
from coca_jax.evaluation.classifiers import Classifiers
from coca_jax.evaluation.dataset import EvaluationSet, UnopenedSet
from coca_jax.evaluation.groups import group_results
from coca_jax.evaluation.metrics.captions import result_files
from coca_jax.evaluation.open_dataset import evaluation_sets
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.results import Value, read_evaluation, write_evaluation
from coca_jax.evaluation.suite import EvaluationResult, evaluate, refusal
from coca_jax.inference.model import Coca
from coca_jax.storage.files import as_path
from coca_jax.trainer.writers import read_history

_log = logging.getLogger(__name__)


class RunEvaluation:
    """Evaluates a run's models on its held-out sets, which are read once (by every process, each in full), and on those
    of `config.evaluation.datasets`, which are read each time.

    Raises:
      CocaError: the held-out records cannot be found.
    """

    def __init__(self, config: Config):
        self._gallery = config.evaluation.gallery
        self._sets = evaluation_sets(config)
        check_same_sets(self._sets)

    def __call__(self, coca: Coca) -> list[EvaluationResult]:
        """The results; an evaluation that fails is said in the log and ends no run."""
        try:
            return evaluate_sets(coca, self._sets, self._gallery)
        except CocaError as error:
            if hosts.is_first():
                _log.error("step %d is not evaluated: %s", coca.step, error)
            return []


def check_same_sets(sets: Sequence[EvaluationSet]) -> None:
    """Raises CocaError on every process, where not all see the same held-out records."""
    digest = hashlib.sha256()
    for held_out in sets:
        digest.update(json.dumps([held_out.name, held_out.images.shape, list(held_out.image_ids)]).encode())
        digest.update(json.dumps([list(own) for own in held_out.captions]).encode())
        for task in held_out.classifications:
            digest.update(json.dumps([task.name, list(task.labels)]).encode())
            digest.update(np.asarray(task.indices, np.int64).tobytes() + np.asarray(task.targets, np.int64).tobytes())
    hosts.check_same(
        digest.hexdigest(), "the hosts see different held-out records: give all of them the same evaluation files"
    )


def evaluate_sets(
    coca: Coca, sets: Sequence[EvaluationSet | UnopenedSet], gallery: int, folder: epath.Path | None = None
) -> list[EvaluationResult]:
    """The result of each set that the model can do something of, then the means of the groups that sets belong to.

    A set that fails among several has a result that says so (`failed`), in the log too.

    Args:
      coca: the model.
      sets: evaluated in their order; unopened ones are open only while it is their turn.
      gallery: how many pictures of each the report shows.
      folder: where large text classifiers are kept for another time; None: nowhere.

    Raises:
      CocaError: as `suite.evaluate`, where no set is left.
    """
    classifiers, results = Classifiers(coca, folder), []
    sets = _possible(coca, sets)
    said = _lacking(sets)
    for number, one in enumerate(sets, 1):
        try:
            results.append(_result(coca, one, f"{number} of {len(sets)}", gallery, classifiers))
        except CocaError as error:
            results.append(EvaluationResult(one.name, {}, {}, failed=str(error)))
            if all(result.failed for result in results) and number == len(sets):
                raise
            if hosts.is_first():
                _log.error("%s is not evaluated: %s", one.name, error)
        for note in results[-1].notes:
            if note not in said and hosts.is_first():
                _log.warning("%s", note)
            said.add(note)
        if results[-1].unreadable and one.asked is not None:
            causes = ", ".join(f"{count:,} {cause}" for cause, count in results[-1].unreadable.items())
            _log.info("%s: records left out: %s", one.name, causes)
    return results + group_results(sets, results)


def _result(
    coca: Coca, one: EvaluationSet | UnopenedSet, place: str, gallery: int, classifiers: Classifiers
) -> EvaluationResult:
    held_out = _opened(one)
    if held_out.asked is not None:
        _log.info("%s (%s): %s pictures", held_out.name, place, f"{len(held_out.images):,}")
    try:
        return evaluate(coca, held_out, gallery, classifiers)
    finally:
        if hasattr(held_out.images, "forget"):
            held_out.images.forget()


def _opened(one: EvaluationSet | UnopenedSet) -> EvaluationSet:
    """The set as all processes see it; what fails on one of them fails on all, or the others would wait for it."""
    if not isinstance(one, UnopenedSet):
        return one
    try:
        held_out = one.open()
    except CocaError as error:
        here = f"{one.name} cannot be opened on every host: {error}"
        try:
            hosts.check_same(f"{one.name} failed", here)
        except CocaError:
            if not hosts.is_first():  # which sees no more than a difference
                _log.error("%s", here)
            raise
        raise
    check_same_sets([held_out])
    return held_out


def _possible(coca: Coca, sets: Sequence[EvaluationSet | UnopenedSet]) -> list[EvaluationSet | UnopenedSet]:
    """Without those that ask only for what the model cannot do; decided before the first one's hours."""
    whys = [refusal(coca, one.asked, isinstance(one, UnopenedSet) or bool(one.classifications)) for one in sets]
    refused = [(one.name, why) for one, why in zip(sets, whys, strict=True) if why]
    if refused and len(refused) == len(sets):
        raise CocaError(": ".join(refused[0]))
    for name, why in refused if hosts.is_first() else ():
        _log.warning("%s is left out: %s", name, why)
    return [one for one, why in zip(sets, whys, strict=True) if not why]


def _lacking(sets: Sequence[EvaluationSet | UnopenedSet]) -> set[str]:
    """What scores of captions need and this machine lacks; said before hours of captions are generated."""
    asked = [one.asked for one in sets if one.asked is not None and "captioning" in one.asked.tasks]
    if not hosts.is_first():
        return set()
    said = captioning.lacking({score for one in asked for score in one.captioning.scores})
    for sentence in said:
        _log.warning("%s", sentence)
    return set(said)


def flat_metrics(results: Sequence[EvaluationResult]) -> dict[str, float]:
    """The metrics of all sets in one dict; keys begin with the set's name."""
    return {key: value for result in results for key, value in result.metrics.items()}


def write_results(
    folder: epath.Path,
    coca: Coca,
    results: Sequence[EvaluationResult],
    title: str,
    *,
    name: str = "",
    checkpoint: str,
) -> None:
    """Writes the metrics as JSON, the report, and captions as COCO's and NoCaps' servers take them.

    Args:
      folder: of the files.
      coca: the model that was evaluated.
      results: of each set.
      title: of the report.
      name: "": the run's own evaluation, `evaluation.json` and `report.html`; or else `evaluation_<name>.json` …
      checkpoint: the folder of the run that the model comes from; with step and digest it says which model it was, and
        the report shows its curves.
    """
    metrics, suffix = flat_metrics(results), f"_{name}" if name else ""
    identity = {"checkpoint": checkpoint, "checkpoint_digest": coca.digest}
    file = folder / f"evaluation{suffix}.json"
    before = _of_the_same(file, coca) if name else {}  # what --sets left out this time
    write_evaluation(file, {**before, **metrics, **identity, "checkpoint_step": coca.step})
    for result in results:
        if result.captions:
            path = folder / f"captions_{result.name}_results.json"
            result_files.write_results(path, result.captions)
            if result.unreadable:
                lost = sum(result.unreadable.values())
                _log.warning("%s lacks %d pictures that could not be read: servers refuse it so", path, lost)
            _log.info("captions for COCO's or NoCaps' server: %s", path)
    info = _info(coca) | {"checkpoint": f"{checkpoint}, step {coca.step:,}, digest {coca.digest}"}
    report = folder / f"report{suffix}.html"
    write_report(report, title=title, results=results, history=read_history(as_path(checkpoint)), info=info)
    _log.info("the report is %s", report)


def _of_the_same(file: epath.Path, coca: Coca) -> dict[str, Value]:
    """What an earlier evaluation of the same model has left; nothing where there is none, or it cannot be read."""
    try:
        found = read_evaluation(file)
    except (CocaError, OSError):
        return {}
    same = found.get("checkpoint_digest") == coca.digest and found.get("checkpoint_step") == coca.step
    return found if same else {}


def _info(coca: Coca) -> dict[str, str]:
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
