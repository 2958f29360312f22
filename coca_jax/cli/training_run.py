"""A run before its first step: its folder, its vocabulary, the check that a resumed run is the same run, its loop."""

import contextlib
import dataclasses
import fnmatch
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from etils import epath

from coca_jax.config import Config
from coca_jax.config.checks import check
from coca_jax.config.fields import differences, flattened, replaced
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.classes import run_classes
from coca_jax.data.text.corpus import load_vocabulary
from coca_jax.data.text.vocabulary import Vocabulary, check_against_model
from coca_jax.distributed import processes as hosts
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.evaluation.results import flat_metrics, write_results
from coca_jax.evaluation.runner import RunEvaluation
from coca_jax.inference.model import Coca
from coca_jax.trainer import preemption, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord, load_record
from coca_jax.trainer.features import check_memory
from coca_jax.trainer.loop import Loop
from coca_jax.trainer.model_info import write_model_info
from coca_jax.trainer.workdir import Claim, writing
from coca_jax.trainer.writers import MetricsWriter, evaluated_steps

_log = logging.getLogger(__name__)

# Keys that may differ between a run and its continuation: they change neither the model nor its data.
_FREE = (
    "evaluation.*",
    "optimizer.*",
    "train.steps",
    "train.*_every",
    "train.keep_checkpoints",
    "train.keep_best",
    "train.evaluate_first",
    "train.tensorboard",
    "train.mesh.*",
    "train.microbatches",
    "data.*path",
    "data.vocabulary",
    "data.max_bad_ratio",
    "data.long_text",
)
_FIXED = "optimizer.name"


@contextlib.contextmanager
def prepared(config: Config, folder: epath.Path, stop: preemption.Preemption) -> Iterator[Loop]:
    """A run's loop, ready to go, with its mesh set and its writers open; afterwards the skipped records are logged.

    Raises:
      CocaError: config, data, folder and devices do not fit together, or the folder is in use or cannot be written.
    """
    if config.objective.name == "pretraining":
        make_mesh(config.train.mesh, config.model)  # refuses an impossible one before the folder is made
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(folder))
        hosts.check_shared(folder)
        claim = stack.enter_context(Claim(folder))
        _keep_compiled(folder)
        checkpoints = Checkpoints(folder, config.train.keep_checkpoints)
        last = checkpoints.latest_step() or 0
        before = checkpoints.record(last) if last else None
        config, classes = adapted(config, before)
        mesh = make_mesh(config.train.mesh, config.model)
        sharding.check_batch_size(mesh, config.train.batch_size, config.train.microbatches)
        if before:
            _check_continues(before.config, last, config, folder)
        vocabulary = _vocabulary(config, before)
        rows = hosts.local_rows(sharding.batch_sharding(mesh), config.train.batch_size)
        pipeline = Pipeline(config, vocabulary, rows=rows.tolist(), classes=classes)
        hosts.check_same(pipeline.fingerprint, "the hosts see different training data: give all of them the same files")
        if before and before.data_fingerprint != pipeline.fingerprint:
            what = "its records, the lists of keys or names, or the extra `fast`"
            raise CocaError(f"{folder} holds a run on other data ({what}): put it back, or choose another --workdir")
        for name, summary in pipeline.summaries.items() if hosts.is_first() else ():
            _log.info("%s: %s", name, summary)
        evaluation = RunEvaluation(config, classes)  # before training: missing held-out data must not show at the end
        _check_metric(config.train.keep_best, evaluation.names)
        built = train_step.build(config, mesh, vocabulary.pad_id)
        check_memory(built, pipeline.record_count)
        stack.callback(_log_skipped, pipeline)
        written = hosts.from_first(lambda: json.dumps(evaluated_steps(folder)).encode())
        writer = None
        if hosts.is_first():
            write_model_info(folder / "model_info.txt", *built.objective.abstract_parameters())
            writer = MetricsWriter(folder, last, config.train.steps, config.train.tensorboard)
            stack.callback(writer.close)
        stack.enter_context(jax.set_mesh(mesh))
        model = functools.partial(
            Coca, config, vocabulary=vocabulary, mesh=mesh, between_batches=stop.check, classes=classes
        )
        evaluate = functools.partial(_evaluate, evaluation, model, folder, writer, checkpoints, config.train.keep_best)
        record = RunRecord(config, vocabulary.model_bytes, pipeline.fingerprint, classes)
        yield Loop(
            step=built,
            record=record,
            batches=pipeline.iterate,
            checkpoints=checkpoints,
            writer=writer,
            preemption=stop,
            evaluate=evaluate,
            evaluated=frozenset(json.loads(written)),
            check=claim.check,
            data_metrics=pipeline.metrics,
        )


def adapted(config: Config, before: RunRecord | None) -> tuple[Config, tuple[str, ...]]:
    """The config of an adaptation with what follows from its origin and its data, and the class names of its head.

    The model is that of the last checkpoint (`before`), else of the run that it starts from; keys of `config.model` that
    differ from their defaults replace that model's (a larger image). Pretraining's config is as it was.

    Raises:
      CocaError: there is no checkpoint at `train.init_from`, its model does not fit the config, or as `run_classes`.
    """
    if config.objective.name == "pretraining":
        return config, ()
    if before is None and not config.train.init_from:
        if hosts.is_first():
            is_frozen = config.objective.has_head and not config.objective.head.encoder_learning_rate
            _log.warning(
                "train.init_from is empty: the objective %s starts from random parameters%s: to adapt a pretrained run, "
                "set --config.train.init_from=RUN",
                config.objective.name,
                ", also the frozen ones" if is_frozen else "",
            )
        model = config.model
    else:
        origin = before or load_record(config.train.init_from)
        model = replaced(origin.config.model, differences(config.model))
    if before is not None:
        classes = before.classes
    else:
        classes = tuple(json.loads(hosts.from_first(lambda: json.dumps(run_classes(config)).encode())))
    head = dataclasses.replace(config.objective.head, classes=len(classes))
    objective = dataclasses.replace(config.objective, head=head)
    config = dataclasses.replace(config, model=model, objective=objective)
    check(config, reads_data=True, completed=True)
    return config, classes


def _evaluate(
    evaluation: RunEvaluation,
    model: Callable[..., Coca],
    folder: epath.Path,
    writer: MetricsWriter | None,
    checkpoints: Checkpoints,
    keep_best: str,
    step: int,
    params: Any,
) -> None:
    """Evaluates the parameters of a step and writes the results; a failed evaluation leaves the last ones.

    Raises:
      CocaError: the evaluations have no metric of the name that `train.keep_best` gives.
    """
    coca = model(params=params, step=step)
    results = evaluation(coca)
    if results is None:
        return
    _ = coca.digest  # made by all processes together, for the first to write it
    metrics = flat_metrics(results)
    if keep_best and keep_best not in metrics:
        raise CocaError(f"train.keep_best = {keep_best} is no metric: choose one of {', '.join(metrics)}")
    if keep_best and step and checkpoints.offer(step, keep_best, metrics[keep_best]) and hosts.is_first():
        _log.info("the best checkpoint is that of step %d: %s = %.4g", step, keep_best, metrics[keep_best])
    if writer:
        writer.write_evaluation(step, metrics)
        writer.flush()  # the report reads the written lines
        for key, value in metrics.items():
            _log.info("%s = %.4g", key, value)
        write_results(folder, coca, results, title=folder.name, checkpoint=str(folder))


def _check_metric(keep_best: str, names: Sequence[str]) -> None:
    """Raises CocaError if no evaluation dataset or group of these names can have the metric."""
    if keep_best and keep_best.partition("/")[0] not in names:
        todo = (
            f"begin with one of {', '.join(names)}, and a slash"
            if names
            else "hold out records (dataset.holdout or holdout_where)"
        )
        raise CocaError(f"train.keep_best = {keep_best}: no held-out data has that name: {todo}")


def _log_skipped(pipeline: Pipeline) -> None:
    for name, skipped in pipeline.skipped_by_source.items():
        for cause, count in skipped.by_cause.items():
            _log.warning("skipped %d record%s of %s: %s", count, "s" * (count > 1), name, cause)


def _keep_compiled(folder: epath.Path) -> None:
    """Lets a restart load what an earlier start compiled: minutes for a large model, and on GPUs the same kernels, so that
    the curve stays the same to the last digit. Not on CPUs, where it may crash the next machine that continues the run."""
    if jax.default_backend() != "cpu" and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # at run time
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))


def _vocabulary(config: Config, before: RunRecord | None) -> Vocabulary:
    """That of the last checkpoint (`before`), else of the run that this starts from, whose parameters belong to its tokens,
    else the config's file, else one trained now, by process 0 for all; CocaError if it does not fit the model."""
    if before is not None:
        return Vocabulary(before.vocabulary)

    def fresh() -> bytes:
        start = config.train.init_from
        return load_record(start).vocabulary if start else load_vocabulary(config).model_bytes

    vocabulary = Vocabulary(hosts.from_first(fresh))
    check_against_model(vocabulary, config.model.text)
    return vocabulary


def _check_continues(before: Config, last: int, config: Config, folder: epath.Path) -> None:
    old, new = (flattened(dataclasses.asdict(one)) for one in (before, config))
    for key in sorted(old.keys() | new.keys()):
        free = key != _FIXED and any(fnmatch.fnmatch(key, pattern) for pattern in _FREE)
        if not free and old.get(key) != new.get(key):
            was = f"{key} was {old.get(key)}, now {new.get(key)}"
            raise CocaError(
                f"{folder} holds a run with other settings ({was}): set it back, or choose another --workdir"
            )
    if last > config.train.steps:
        beyond = f"a checkpoint at step {last}, beyond train.steps = {config.train.steps}"
        raise CocaError(f"{folder} holds {beyond}: set train.steps to at least {last}, or choose another --workdir")
